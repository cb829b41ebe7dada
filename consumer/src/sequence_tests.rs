use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// The numbers of a key after all of these, each with its number in the log.
fn after(settled: &[(i64, i64)]) -> Numbers {
    let mut known = None;
    for (number, seq) in settled {
        match judge(known.as_ref(), *number, *seq) {
            Says::New { numbers, .. } => known = Some(numbers),
            Says::Settled | Says::Reused | Says::Unknown => panic!("{number} is not new"),
        }
    }
    known.unwrap()
}

fn says(known: &Numbers, number: i64, seq: i64) -> &'static str {
    match judge(Some(known), number, seq) {
        Says::New { mark: false, .. } => "new",
        Says::New { mark: true, .. } => "new unless marked",
        Says::Settled => "settled",
        Says::Reused => "reused",
        Says::Unknown => "unknown",
    }
}

#[test]
fn numbers_in_order_need_no_gap_and_no_mark_but_for_the_first() {
    let known = after(&[(1, 10), (2, 20), (3, 30)]);

    assert_eq!(known.gaps.text(), "{}");
    assert_eq!(says(&known, 4, 40), "new");
    assert_eq!(says(&known, 3, 30), "settled");
    assert!(matches!(judge(None, 1, 10), Says::New { mark: true, .. }));
}

#[test]
fn what_lies_below_the_first_number_and_what_is_left_out_can_still_come() {
    let known = after(&[(5, 50), (9, 90)]);

    assert_eq!(known.gaps.text(), "{[1,5),[6,9)}");
    assert_eq!(says(&known, 7, 70), "new unless marked");
    assert_eq!(
        after(&[(5, 50), (9, 90), (7, 70)]).gaps.text(),
        "{[1,5),[6,7),[8,9)}"
    );
    assert_eq!(says(&after(&[(5, 50), (9, 90), (7, 70)]), 7, 70), "settled");
}

#[test]
fn a_number_that_is_given_twice_is_no_duplicate_in_silence() {
    let known = after(&[(1, 10), (2, 20)]);

    assert_eq!(says(&known, 1, 30), "reused");
    assert_eq!(says(&known, 2, 30), "reused");
}

#[test]
fn after_a_number_was_given_twice_marks_decide_on_all_that_is_newer() {
    let known = Numbers {
        reused: true,
        ..after(&[(1, 10), (2, 20)])
    };

    let Says::New { numbers, mark } = judge(Some(&known), 3, 50) else {
        panic!("3 is new");
    };

    assert!(mark);
    assert_eq!(numbers.seen, 20);
    // It came late, and is no copy of what was settled.
    assert_eq!(says(&numbers, 2, 40), "reused");
    assert_eq!(says(&numbers, 2, 20), "settled");
}

#[test]
fn the_hundred_and_first_gap_closes_the_lowest() {
    let numbers: Vec<(i64, i64)> = (1..=101).map(|n| (n * 3, n * 3)).collect();

    let known = after(&numbers);

    assert_eq!(known.closed, 2);
    assert_eq!(says(&known, 1, 1), "unknown");
    assert_eq!(says(&known, 3, 3), "settled");
    assert_eq!(says(&known, 4, 4), "new unless marked");
}

#[test]
fn the_largest_number_is_one() {
    let known = after(&[(1, 1), (i64::MAX, 2)]);

    assert_eq!(known.gaps.text(), format!("{{[2,{})}}", i64::MAX));
    assert_eq!(says(&known, i64::MAX, 2), "settled");
    assert_eq!(Gaps::parse(&known.gaps.text()), Some(known.gaps));
}

#[test]
fn what_postgres_would_not_write_is_no_list_of_gaps() {
    for text in ["", "{", "{[1,2]}", "{(,5)}", "{[1,2),}", "{[a,b)}"] {
        assert_eq!(Gaps::parse(text), None, "{text}");
    }
}

/// A message: its number and its number in the log, which is its own.
type Sent = (i64, i64);

/// A consumer, and what became of each message.
#[derive(Default)]
struct Model {
    known: Option<Numbers>,
    marks: HashSet<Sent>,
    handled: HashMap<Sent, u32>,
    dead: HashMap<Sent, u32>,
    duplicates: Vec<Sent>,
}

impl Model {
    fn deliver(&mut self, sent: Sent) {
        match judge(self.known.as_ref(), sent.0, sent.1) {
            Says::New { mark: true, .. } if self.marks.contains(&sent) => {
                self.duplicates.push(sent);
            }
            Says::New { numbers, mark } => {
                self.known = Some(numbers);
                if mark {
                    self.marks.insert(sent);
                }
                *self.handled.entry(sent).or_default() += 1;
            }
            Says::Settled => self.duplicates.push(sent),
            says @ (Says::Reused | Says::Unknown) => {
                if let (Says::Reused, Some(known)) = (says, &mut self.known) {
                    known.reused = true;
                }
                if self.marks.insert(sent) {
                    *self.dead.entry(sent).or_default() += 1;
                } else {
                    self.duplicates.push(sent);
                }
            }
        }
    }

    fn is_settled(&self, sent: Sent) -> bool {
        self.handled.contains_key(&sent) || self.dead.contains_key(&sent)
    }
}

proptest! {
    /// In any order, with copies, and with numbers left out.
    #[test]
    fn each_number_is_handled_once_in_any_order(
        deliveries in prop::collection::vec(1_i64..60, 1..300),
    ) {
        let mut model = Model::default();
        for number in &deliveries {
            model.deliver((*number, number * 7));
        }
        for number in &deliveries {
            prop_assert_eq!(model.handled.get(&(*number, number * 7)), Some(&1));
        }
        prop_assert!(model.dead.is_empty());
    }

    /// As many gaps as there may be: what cannot be told is a dead letter, once, and nothing is lost in silence.
    #[test]
    fn beyond_the_bound_nothing_is_handled_twice_or_lost_in_silence(
        deliveries in prop::collection::vec(1_i64..2_000, 300..1_200),
    ) {
        let mut model = Model::default();
        for number in &deliveries {
            let sent = (*number, *number);
            model.deliver(sent);
            prop_assert!(model.is_settled(sent), "{number} is lost");
        }
        prop_assert!(model.handled.values().all(|times| *times == 1));
        prop_assert!(model.dead.values().all(|times| *times == 1));
    }

    /// The producer's numbering begins anew at times. First arrivals come in the order of the log, copies at any time.
    #[test]
    fn a_numbering_that_begins_anew_loses_nothing_in_silence(
        runs in prop::collection::vec(1_i64..12, 1..6),
        copies in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let numbers = runs.iter().flat_map(|length| 1..=*length);
        let sent: Vec<Sent> = numbers.zip(1..).collect();
        let mut model = Model::default();
        let mut copies = copies.iter();
        for (place, one) in sent.iter().enumerate() {
            model.deliver(*one);
            prop_assert!(model.is_settled(*one), "{one:?} is lost");
            if let Some(copy) = copies.next() {
                model.deliver(sent[copy.index(place + 1)]);
            }
        }
        for one in &sent {
            let times = model.handled.get(one).copied().unwrap_or(0) + model.dead.get(one).copied().unwrap_or(0);
            prop_assert_eq!(times, 1, "{:?}", one);
        }
    }

    #[test]
    fn gaps_are_read_as_they_are_written(
        deliveries in prop::collection::vec(1_i64..200, 1..100),
    ) {
        let mut model = Model::default();
        for number in &deliveries {
            model.deliver((*number, *number));
        }
        let gaps = model.known.unwrap().gaps;
        prop_assert_eq!(Gaps::parse(&gaps.text()), Some(gaps));
    }
}
