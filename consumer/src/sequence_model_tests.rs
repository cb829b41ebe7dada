//! Any order of deliveries, copies, restarts and numberings that begin anew, against what a consumer would make of them.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::tests::{at, kept, one};
use super::*;

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
