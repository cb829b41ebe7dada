//! Tests of forgetting.

use super::*;

fn day(n: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::from_secs(86_400) * u32::try_from(n).unwrap()
}

#[test]
fn a_slot_is_emptied_by_its_newest_mark_and_cleaned_by_its_oldest() {
    let judge = |oldest, newest| judge(day(100), RETENTION, Some(day(oldest)), Some(day(newest)));

    assert_eq!(judge(80, 91), Verdict::Empty);
    assert_eq!(judge(91, 93), Verdict::Keep);
    assert_eq!(judge(80, 99), Verdict::Clean);
    assert_eq!(
        super::judge(day(100), RETENTION, None, None),
        Verdict::Keep,
        "an empty slot"
    );
}
