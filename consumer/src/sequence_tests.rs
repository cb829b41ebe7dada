use std::collections::{HashMap, HashSet};
use std::time::Duration;

use onceward_core::MAX_PAYLOAD;
use proptest::prelude::*;

use super::*;

/// A second of the log's.
fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second.unsigned_abs())
}

/// A message that was written in the second of its number in the log.
fn one(number: i64, seq: i64) -> Numbered {
    Numbered {
        line: Uuid::nil(),
        topic: String::new(),
        key: String::new(),
        number,
        seq,
        time: at(seq),
        mark: Uuid::from_u64_pair(number.unsigned_abs(), seq.unsigned_abs()),
    }
}

fn kept(numbers: &Numbers, raised_at: i64) -> Option<Known> {
    Some(Known {
        numbers: numbers.clone(),
        raised_at: at(raised_at),
    })
}

/// Judges by a row that was changed since the consumer started.
fn judge_one(numbers: &Numbers, message: &Numbered) -> Judged {
    judge(kept(numbers, 1), message, at(0))
}

/// The numbers of a key after all of these, each with its number in the log.
fn after(settled: &[(i64, i64)]) -> Numbers {
    let mut known = None;
    for (number, seq) in settled {
        match judge(known, &one(*number, *seq), at(0)) {
            Judged::First(numbers) | Judged::New { numbers, .. } => known = kept(&numbers, 1),
            Judged::Settled | Judged::Reused(_) | Judged::Unknown => panic!("{number} is not new"),
        }
    }
    known.unwrap().numbers
}

fn word(judged: &Judged) -> &'static str {
    match judged {
        Judged::First(_) => "first",
        Judged::New {
            besides: Besides::Nothing,
            ..
        } => "new",
        Judged::New {
            besides: Besides::Mark,
            ..
        } => "new unless marked",
        Judged::Settled => "settled",
        Judged::Reused(_) => "reused",
        Judged::Unknown => "unknown",
    }
}

fn says(numbers: &Numbers, number: i64, seq: i64) -> &'static str {
    word(&judge_one(numbers, &one(number, seq)))
}

fn ranges(numbers: &Numbers) -> Vec<Range<i64>> {
    numbers.gaps.0.clone()
}

#[test]
fn numbers_in_order_need_no_gap_and_no_mark_but_for_the_first() {
    let known = after(&[(1, 10), (2, 20), (3, 30)]);

    assert_eq!(ranges(&known), []);
    assert_eq!(says(&known, 4, 40), "new");
    assert_eq!(says(&known, 3, 30), "settled");
    assert_eq!(says(&known, 2, 20), "settled");
    assert_eq!(word(&judge(None, &one(1, 10), at(0))), "first");
}

#[test]
fn what_lies_below_the_first_number_and_what_is_left_out_can_still_come() {
    let known = after(&[(5, 50), (9, 90)]);

    assert_eq!(ranges(&known), [1..5, 6..9]);
    assert_eq!(says(&known, 7, 70), "new unless marked");
    let later = after(&[(5, 50), (9, 90), (7, 70)]);
    assert_eq!(ranges(&later), [1..5, 6..7, 8..9]);
    assert_eq!(says(&later, 7, 70), "settled");
}

#[test]
fn a_number_that_is_given_twice_is_no_duplicate_in_silence() {
    let known = after(&[(1, 10), (2, 20)]);

    assert_eq!(says(&known, 1, 30), "reused");
    assert_eq!(says(&known, 2, 30), "reused");
}

#[test]
fn what_the_log_numbers_again_after_it_has_gone_back_is_no_duplicate_in_silence() {
    let known = after(&[(1, 10), (2, 20), (3, 30)]);
    let again = Numbered {
        time: at(31),
        ..one(2, 20)
    };

    assert_eq!(word(&judge_one(&known, &again)), "reused");
    assert_eq!(says(&known, 2, 20), "settled", "the first one");
}

#[test]
fn under_the_highest_number_the_id_tells_a_copy_from_another_message() {
    let known = after(&[(1, 10), (2, 20)]);
    let enqueued_twice = Numbered {
        mark: one(2, 20).mark,
        ..one(2, 30)
    };
    let another = Numbered {
        mark: Uuid::max(),
        ..one(2, 15)
    };

    assert_eq!(word(&judge_one(&known, &enqueued_twice)), "settled");
    assert_eq!(word(&judge_one(&known, &another)), "reused");
}

#[test]
fn after_a_number_was_given_twice_marks_decide_on_all_that_is_newer() {
    let Judged::Reused(known) = judge_one(&after(&[(1, 10), (2, 20)]), &one(1, 30)) else {
        panic!("1 is reused");
    };

    let Judged::New { numbers, besides } = judge_one(&known, &one(3, 50)) else {
        panic!("3 is new");
    };

    assert_eq!(besides, Besides::Mark);
    assert_eq!((numbers.seen, numbers.seen_at), (20, at(20)));
    // They came late, and are no copies of what was settled.
    assert_eq!(says(&numbers, 2, 40), "reused");
    assert_eq!(says(&numbers, 1, 10), "settled");
}

#[test]
fn behind_a_row_that_is_older_than_the_consumer_a_mark_decides_besides() {
    let known = after(&[(1, 10), (2, 20)]);
    let judge = |number| word(&judge(kept(&known, 99), &one(number, 30), at(100)));

    assert_eq!(judge(3), "new unless marked");
    assert_eq!(judge(5), "new unless marked");
    assert_eq!(says(&known, 3, 30), "new");
}

#[test]
fn the_hundred_and_first_gap_closes_the_lowest() {
    let numbers: Vec<(i64, i64)> = (1..=101).map(|n| (n * 3, n * 3)).collect();

    let known = after(&numbers);

    assert_eq!(known.closed, 2);
    assert_eq!(says(&known, 1, 1), "unknown");
    assert_eq!(says(&known, 1, 1_000), "unknown", "it may just come late");
    assert_eq!(says(&known, 3, 3), "settled");
    assert_eq!(says(&known, 4, 4), "new unless marked");
}

#[test]
fn the_largest_number_is_one() {
    let known = after(&[(1, 1), (i64::MAX, 2)]);

    let gap = 2..i64::MAX;
    assert_eq!(ranges(&known), [gap]);
    assert_eq!(says(&known, i64::MAX, 2), "settled");
}

#[test]
fn what_waits_or_is_dead_has_a_mark_besides_its_number() {
    let ours = |besides| Taken::Ours {
        written: (),
        besides,
    };
    let dead = Ending::Dead(DeadReason::Rejected);

    let nothing = ours(Besides::Nothing);
    assert_eq!(decide(&nothing, Ending::Passing), Decides::Number);
    assert_eq!(decide(&nothing, Ending::Waits), Decides::Mark);
    assert_eq!(decide(&nothing, dead), Decides::Mark);
    assert_eq!(decide(&ours(Besides::Mark), Ending::Passing), Decides::Mark);
}

#[test]
fn of_what_is_settled_only_a_letter_of_its_number_or_of_its_own_transaction_is_written() {
    let settled = Taken::<()>::Settled;
    let dead = |reason| decide(&settled, Ending::Dead(reason));

    assert_eq!(decide(&settled, Ending::Passing), Decides::Settled);
    assert_eq!(decide(&settled, Ending::Waits), Decides::Settled);
    assert_eq!(decide(&settled, Ending::Ended), Decides::Mark);
    assert_eq!(dead(DeadReason::Rejected), Decides::Settled);
    assert_eq!(dead(DeadReason::SequenceReused), Decides::Mark);
    assert_eq!(dead(DeadReason::SequenceUnknown), Decides::Mark);
}

#[test]
fn a_message_of_ours_without_a_key_a_number_or_a_time_has_no_place_among_the_numbers() {
    let draft = Message::bytes("orders", "x").key("k").sequence(7);
    let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
    message.seq = Some(3);
    message.time = Some(at(3) + Duration::from_nanos(1_999));

    let numbered = Numbered::of(&message).unwrap();

    assert_eq!((numbered.number, numbered.seq), (7, 3));
    assert_eq!(numbered.mark, Mark::of(&message).id);
    // Postgres keeps microseconds: a copy must not be later than what is kept of it.
    assert_eq!(numbered.time, at(3) + Duration::from_micros(1));
    message.time = None;
    assert_eq!(Numbered::of(&message), None);
}

/// What a message is, whichever delivery brings it.
type Sent = Uuid;

/// A consumer, and what became of each message.
#[derive(Default)]
struct Model {
    known: Option<Known>,
    marks: HashSet<Sent>,
    handled: HashMap<Sent, u32>,
    dead: HashMap<Sent, u32>,
    /// When it started, and what time it is.
    started: i64,
    clock: i64,
}

impl Model {
    /// Begins anew, later.
    fn start(&mut self) {
        self.clock += 1;
        self.started = self.clock;
    }

    fn take(&mut self, message: &Numbered) -> Taken<Numbers> {
        match judge(self.known.clone(), message, at(self.started)) {
            Judged::First(written) => Taken::Ours {
                written,
                besides: Besides::Mark,
            },
            Judged::New { numbers, besides } => Taken::Ours {
                written: numbers,
                besides,
            },
            Judged::Settled => Taken::Settled,
            Judged::Reused(numbers) => Taken::Reused(numbers),
            Judged::Unknown => Taken::Unknown,
        }
    }

    fn write(&mut self, numbers: &Numbers) {
        self.clock += 1;
        self.known = match self.known.take() {
            Some(known) if known.numbers.high == numbers.high => Some(Known {
                numbers: numbers.clone(),
                ..known
            }),
            Some(_) | None => kept(numbers, self.clock),
        };
    }

    /// By numbers.
    fn deliver(&mut self, message: &Numbered) {
        let reason = match self.take(message) {
            Taken::Ours { written, besides } => {
                match besides {
                    Besides::Mark if !self.marks.insert(message.mark) => return,
                    Besides::Mark | Besides::Nothing => {}
                }
                self.write(&written);
                *self.handled.entry(message.mark).or_default() += 1;
                return;
            }
            Taken::Settled => return,
            Taken::Reused(_) => DeadReason::SequenceReused,
            Taken::Unknown => DeadReason::SequenceUnknown,
        };
        let taken = self.take(message);
        if let Taken::Reused(numbers) = &taken {
            self.write(numbers);
        }
        if decide(&taken, Ending::Dead(reason)) == Decides::Mark && self.marks.insert(message.mark)
        {
            *self.dead.entry(message.mark).or_default() += 1;
        }
    }

    /// By marks alone, as a consumer that is switched back.
    fn deliver_by_mark(&mut self, message: &Numbered) {
        self.clock += 1;
        if self.marks.insert(message.mark) {
            *self.handled.entry(message.mark).or_default() += 1;
        }
    }

    /// How often it was handled or became a dead letter.
    fn times(&self, message: &Numbered) -> u32 {
        let of = |map: &HashMap<Sent, u32>| map.get(&message.mark).copied().unwrap_or(0);
        of(&self.handled) + of(&self.dead)
    }
}

proptest! {
    /// In any order, with copies, and with numbers left out; the consumer starts anew at times.
    #[test]
    fn each_number_is_handled_once_in_any_order(
        deliveries in prop::collection::vec((1_i64..60, prop::bool::weighted(0.1)), 1..300),
    ) {
        let mut model = Model::default();
        for (number, starts) in &deliveries {
            if *starts {
                model.start();
            }
            model.deliver(&one(*number, number * 7));
        }
        for (number, _) in &deliveries {
            prop_assert_eq!(model.times(&one(*number, number * 7)), 1);
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
            model.deliver(&one(*number, *number));
            prop_assert!(model.times(&one(*number, *number)) > 0, "{number} is lost");
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
        let sent: Vec<Numbered> = numbers.zip(1..).map(|(number, seq)| one(number, seq)).collect();
        let mut model = Model::default();
        deliver_with_copies(&mut model, &sent, &copies);
        for one in &sent {
            prop_assert_eq!(model.times(one), 1, "{:?}", one);
        }
    }

    /// The log goes back at times, and gives its numbers again, and the producer with it. What it has forgotten may have been delivered.
    #[test]
    fn a_log_that_goes_back_loses_nothing_in_silence(
        eras in prop::collection::vec((1_i64..10, 0_i64..10), 1..6),
        copies in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
    ) {
        let (mut last, mut second, mut sent) = (0, 0, Vec::new());
        for (written, forgotten) in &eras {
            for number in last + 1..=last + written {
                second += 1;
                let time = at(second);
                let mark = Uuid::from_u64_pair(0, second.unsigned_abs());
                sent.push(Numbered { time, mark, ..one(number, number) });
            }
            last = (last + written - forgotten).max(0);
        }
        let mut model = Model::default();
        deliver_with_copies(&mut model, &sent, &copies);
        for one in &sent {
            prop_assert_eq!(model.times(one), 1, "{:?}", one);
        }
    }

    /// From marks to numbers, and there and back again: what was settled by marks comes once more, behind a number that comes late.
    #[test]
    fn switched_on_and_off_and_on_nothing_is_handled_twice(
        phases in prop::collection::vec((1_i64..8, 1_i64..8), 1..5),
        copies in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (mut model, mut last, mut copies) = (Model::default(), 0, copies.into_iter());
        let mut late: Option<Numbered> = None;
        for (by_number, by_mark) in &phases {
            // The first is left out.
            let numbers = last + 1..=last + 1 + by_number;
            let sent: Vec<Numbered> = numbers.map(|number| one(number, number)).collect();
            for (place, message) in sent.iter().enumerate().skip(1) {
                model.deliver(message);
                if let Some(copy) = copies.next() {
                    model.deliver(&sent[1 + copy.index(place)]);
                }
            }
            last += 1 + by_number;
            late.get_or_insert(sent[0].clone());
            let numbers = last + 1..=last + by_mark;
            let sent: Vec<Numbered> = numbers.map(|number| one(number, number)).collect();
            sent.iter().chain(&sent).for_each(|message| model.deliver_by_mark(message));
            last += by_mark;
            model.start();
            if let Some(late) = &late {
                model.deliver(late);
            }
            sent.iter().for_each(|message| model.deliver(message));
        }
        for number in 1..=last {
            prop_assert!(model.times(&one(number, number)) <= 1, "{}", number);
        }
        prop_assert!(model.dead.is_empty());
    }

    #[test]
    fn gaps_are_read_as_they_are_written(
        deliveries in prop::collection::vec(1_i64..200, 1..100),
    ) {
        let mut model = Model::default();
        for number in &deliveries {
            model.deliver(&one(*number, *number));
        }
        let gaps = model.known.unwrap().numbers.gaps;
        prop_assert_eq!(Gaps::between(&gaps.starts(), &gaps.ends()), gaps);
    }
}

/// Each in its turn, and behind each a copy of one that came before.
fn deliver_with_copies(model: &mut Model, sent: &[Numbered], copies: &[prop::sample::Index]) {
    let mut copies = copies.iter();
    for (place, one) in sent.iter().enumerate() {
        model.deliver(one);
        if let Some(copy) = copies.next() {
            model.deliver(&sent[copy.index(place + 1)]);
        }
    }
}
