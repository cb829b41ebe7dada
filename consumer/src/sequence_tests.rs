//! Tests of what a number says of a message.

use std::time::Duration;

use onceward_core::MAX_PAYLOAD;

use super::*;

/// A second of the log's.
pub(super) fn at(second: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_secs(second.unsigned_abs())
}

/// A message that was written in the second of its number in the log.
pub(super) fn one(number: i64, seq: i64) -> Numbered {
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

pub(super) fn kept(numbers: &Numbers, raised_at: i64) -> Option<Known> {
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
