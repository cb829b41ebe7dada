//! Who may take whose answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::{Lane, Schema};
use onceward_testkit::postgres::Postgres;
use time::OffsetDateTime;
use uuid::Uuid;

use super::places::Places;
use super::recent::Recent;
use super::rule::{Answer, Ask};
use super::{Brought, Interest, SharedReads};
use crate::log::cursor::{Cursor, Paging, Step};
use crate::log::durability::PublishAfter;
use crate::log::identity::{Identity, Server};
use crate::log::read::{CursorRead, LogReader, Read};
use crate::log::row::{LogRow, Stored};
use crate::log::session::LogDatabase;

const SERVER: Server = Server {
    identity: Identity {
        system: 7,
        timeline: 1,
    },
    started: 1_000,
    database: 5,
};

fn at(last: i64, seen: &str) -> Cursor {
    Cursor::starting(last, seen.parse().unwrap())
}

fn row(seq: i64) -> LogRow {
    row_with(seq, &[0; 100])
}

fn row_with(seq: i64, payload: &[u8]) -> LogRow {
    let stored = Stored {
        seq,
        id: Uuid::nil(),
        topic: "orders",
        key: None,
        kind: "orders",
        headers: b"\x01{}",
        payload,
        created_at: OffsetDateTime::UNIX_EPOCH,
    };
    LogRow {
        seq,
        slot: 0,
        lane: Lane::Standard,
        created_at: OffsetDateTime::UNIX_EPOCH,
        message: stored.message().unwrap(),
    }
}

fn ask(cursor: &Cursor) -> Ask {
    Ask {
        server: SERVER,
        schema: Schema::default(),
        publish_after: PublishAfter::Flushed,
        reads: vec![CursorRead {
            lane: Lane::Standard,
            cursor: cursor.clone(),
            limit: 10,
            bytes: 10_000,
        }],
    }
}

fn answer(ask: Ask, rows: &[i64], after: Cursor) -> Answer {
    of_rows(ask, rows.iter().map(|seq| row(*seq)).collect(), after)
}

fn of_rows(ask: Ask, rows: Vec<LogRow>, after: Cursor) -> Answer {
    let read = Read {
        steps: vec![Step {
            rows,
            after,
            left: false,
        }],
        now: OffsetDateTime::UNIX_EPOCH,
        begun: Instant::now(),
        came: Instant::now(),
    };
    Answer::new(ask, read)
}

/// Rows 8 and 9, read behind row 7.
fn rows() -> Answer {
    answer(ask(&at(7, "10:12:10")), &[8, 9], at(9, "14:16:14"))
}

/// With one thing changed.
fn but(mut ask: Ask, change: impl FnOnce(&mut Ask)) -> Ask {
    change(&mut ask);
    ask
}

#[test]
fn whoever_asks_the_same_takes_the_answer() {
    let same = ask(&at(7, "10:12:10"));

    assert!(same.may_await(&rows().ask));
    assert!(same.may_take(&rows()));
}

#[test]
fn an_answer_is_not_shared_between_servers_runs_of_a_server_promises_lanes_or_places() {
    let same = || ask(&at(7, "10:12:10"));
    let others = [
        but(same(), |ask| ask.server.identity.system = 8),
        but(same(), |ask| ask.server.identity.timeline = 2),
        but(same(), |ask| ask.server.started = 1_001),
        but(same(), |ask| ask.server.database = 6),
        but(same(), |ask| {
            ask.schema = Schema::try_from("other").unwrap()
        }),
        but(same(), |ask| ask.publish_after = PublishAfter::Visible),
        but(same(), |ask| {
            ask.publish_after = PublishAfter::Replicated("b".to_owned());
        }),
        but(same(), |ask| ask.reads[0].lane = Lane::Bulk),
        but(same(), |ask| ask.reads.push(ask.reads[0].clone())),
        but(same(), |ask| ask.reads[0].cursor.floor = 3),
        but(same(), |ask| ask.reads[0].cursor.last = 6),
    ];

    for other in others {
        assert!(!other.may_await(&rows().ask), "{other:?}");
        assert!(!other.may_take(&rows()), "{other:?}");
    }
}

#[test]
fn what_a_crash_may_undo_and_what_is_empty_is_nobody_elses() {
    let visible = |ask: Ask| but(ask, |ask| ask.publish_after = PublishAfter::Visible);
    let same = || ask(&at(7, "10:12:10"));
    let mut seen = rows();
    seen.ask = visible(seen.ask);
    let empty = answer(same(), &[], at(7, "14:16:14"));

    assert!(!visible(same()).may_take(&seen));
    assert!(!visible(same()).may_await(&seen.ask));
    assert!(!same().may_take(&empty));
}

#[test]
fn readers_behind_the_same_row_share_if_the_one_that_asked_has_seen_no_more() {
    let takes = |seen: &str| ask(&at(7, seen)).may_take(&rows());

    assert!(takes("10:13:10"));
    assert!(takes("13:14:"));
    // 11 was running for this one, so that its rows are late for it.
    assert!(!takes("10:12:10,11"));
    // 14 had ended for this one: what it has had of it would come again behind the answer.
    assert!(!takes("15:15:"));
}

#[test]
fn what_came_late_for_one_need_not_be_late_for_another() {
    let late = || {
        let asked = ask(&at(7, "10:12:10"));
        answer(asked, &[5, 8], at(8, "14:16:14"))
    };

    assert!(ask(&at(7, "10:12:10")).may_take(&late()));
    assert!(!ask(&at(7, "10:13:10")).may_take(&late()));
}

#[test]
fn a_page_of_late_rows_goes_only_to_those_on_the_same_page() {
    let paging = |late_pos| Cursor {
        paging: Some(Paging {
            pinned: "14:16:14".parse().unwrap(),
            late_pos,
        }),
        ..at(7, "10:12:10")
    };
    let page = || answer(ask(&paging(2)), &[3, 4], paging(4));

    assert!(ask(&paging(2)).may_take(&page()));
    assert!(!ask(&paging(1)).may_take(&page()));
    assert!(!ask(&at(7, "10:12:10")).may_take(&page()));
    assert!(!ask(&paging(2)).may_take(&rows()));
}

#[test]
fn nobody_takes_more_than_it_has_room_for() {
    let with = |limit, bytes| {
        but(ask(&at(7, "10:12:10")), |ask| {
            (ask.reads[0].limit, ask.reads[0].bytes) = (limit, bytes);
        })
    };

    assert!(!with(1, 10_000).may_take(&rows()));
    assert!(!with(10, 300).may_take(&rows()));
    // The answer is smaller than what was asked.
    assert!(with(2, 1_000).may_take(&rows()));
    assert!(!with(2, 1_000).may_await(&rows().ask));
    assert!(with(11, 20_000).may_await(&rows().ask));
}

#[test]
fn answers_are_kept_for_two_seconds_if_there_is_anything_in_them() {
    let now = Instant::now();
    let same = ask(&at(7, "10:12:10"));
    let mut recent = Recent::default();

    recent.keep(&Arc::new(answer(same.clone(), &[], at(7, "14:16:14"))), now);
    assert!(recent.find(&same, now).is_none());

    recent.keep(&Arc::new(rows()), now);
    assert!(recent.find(&same, now).is_some());
    assert!(recent.find(&same, now + Duration::from_secs(3)).is_none());
    assert!(recent.find(&same, now).is_none());
}

#[test]
fn the_oldest_answers_go_when_there_are_many() {
    let now = Instant::now();
    let mut recent = Recent::default();
    let behind = |last: i64| ask(&at(last, "10:12:10"));

    for last in 1..=17 {
        let after = at(last + 1, "14:16:14");
        let answer = answer(behind(last), &[last + 1], after);
        recent.keep(&Arc::new(answer), now);
    }

    assert!(recent.find(&behind(1), now).is_none());
    for last in 2..=17 {
        assert!(recent.find(&behind(last), now).is_some(), "{last}");
    }
}

#[test]
fn of_heavy_answers_few_are_kept() {
    let now = Instant::now();
    let mut recent = Recent::default();
    let behind = |last: i64| {
        but(ask(&at(last, "10:12:10")), |ask| {
            ask.reads[0].bytes = 1 << 30
        })
    };
    let heavy = |last: i64, megabytes: usize| {
        let rows = vec![row_with(last + 1, &vec![0; megabytes * 1_000_000])];
        Arc::new(of_rows(behind(last), rows, at(last + 1, "14:16:14")))
    };

    let kept = |recent: &mut Recent| {
        let of = [1, 2, 3, 4, 5, 6, 7].into_iter();
        of.filter(|last| recent.find(&behind(*last), now).is_some())
            .collect::<Vec<_>>()
    };

    for last in 1..=5 {
        recent.keep(&heavy(last, 2), now);
    }
    assert_eq!(kept(&mut recent), [2, 3, 4, 5]);
    recent.keep(&heavy(6, 15), now);
    assert_eq!(kept(&mut recent), [6]);
    recent.keep(&heavy(7, 17), now);
    assert_eq!(kept(&mut recent), [6], "too heavy even alone");
}

#[test]
fn whoever_takes_an_answer_is_told_whether_the_one_behind_it_is_kept_too() {
    let now = Instant::now();
    let mut recent = Recent::default();
    let step = |last: i64| {
        let asked = ask(&at(last, "10:12:10"));
        Arc::new(answer(asked, &[last + 1], at(last + 1, "14:16:14")))
    };
    let has_next = |recent: &mut Recent, last| {
        let (taken, has_next) = recent.find(&ask(&at(last, "10:12:10")), now).unwrap();
        assert_eq!(taken.ask.reads[0].cursor.last, last);
        has_next
    };

    recent.keep(&step(8), now);
    recent.keep(&step(7), now);
    recent.keep(&step(20), now);
    assert!(!has_next(&mut recent, 7), "that was read before it");
    recent.keep(&step(8), now);

    assert!(has_next(&mut recent, 7));
    assert!(!has_next(&mut recent, 8));
}

/// How long the readers of these tests let others read.
const COURTESY: Duration = Duration::from_millis(50);

/// Whether a passing reader behind row 9 lets one read that stands behind `other`, with an answer that leads from row 7 to row 9 kept.
fn lets_read(other: &Ask, interest: Interest) -> bool {
    let (mut recent, now) = (Recent::default(), Instant::now());
    recent.keep(&Arc::new(rows()), now);
    let mut places = Places::default();
    places.stand(1, other, interest, (now, COURTESY));
    let mine = ask(&at(9, "14:16:14"));
    places.stand(2, &mine, Interest::Passing, (now, COURTESY));
    places.lets_read(2, &recent, now).is_some()
}

#[test]
fn one_that_passes_lets_those_read_that_publish_and_come_where_it_stands() {
    let behind = |last| ask(&at(last, "10:12:10"));

    assert!(lets_read(&behind(7), Interest::Own), "through what is kept");
    assert!(lets_read(&behind(9), Interest::Own), "it is there");
    assert!(!lets_read(&behind(7), Interest::Passing));
    assert!(!lets_read(&behind(6), Interest::Own), "it reads by itself");
    assert!(!lets_read(&behind(8), Interest::Own), "it reads by itself");
    assert!(!lets_read(&behind(10), Interest::Own), "it is ahead");
    let elsewhere = but(behind(7), |ask| ask.reads[0].lane = Lane::Bulk);
    assert!(!lets_read(&elsewhere, Interest::Own));
    let larger = but(behind(9), |ask| ask.reads[0].limit = 11);
    assert!(
        !lets_read(&larger, Interest::Own),
        "there is no room for it"
    );
}

#[test]
fn nobody_waits_for_what_was_read_already() {
    let (mut recent, now) = (Recent::default(), Instant::now());
    let mut places = Places::default();
    let here = ask(&at(7, "10:12:10"));
    places.stand(1, &here, Interest::Own, (now, COURTESY));
    places.stand(2, &here, Interest::Passing, (now, COURTESY));
    assert!(places.lets_read(2, &recent, now).is_some());

    recent.keep(&Arc::new(rows()), now);

    assert!(places.lets_read(2, &recent, now).is_none());
}

#[test]
fn only_one_that_passes_lets_others_read_and_only_those_that_take_part() {
    let (recent, now) = (Recent::default(), Instant::now());
    let mut places = Places::default();
    let here = ask(&at(9, "14:16:14"));
    places.stand(1, &here, Interest::Own, (now, COURTESY));
    places.stand(2, &here, Interest::Own, (now, COURTESY));
    assert!(places.lets_read(2, &recent, now).is_none());

    places.stand(2, &here, Interest::Passing, (now, COURTESY));
    assert!(places.lets_read(2, &recent, now).is_some());
    places.leave(1);
    assert!(places.lets_read(2, &recent, now).is_none());
}

#[test]
fn one_that_passes_gets_on_by_as_much_as_it_asks_for_however_little_others_read() {
    let (recent, begun) = (Recent::default(), Instant::now());
    let mut places = Places::default();
    // Both are there; it asks for ten.
    let mut until_at = |last, millis| {
        let now = begun + Duration::from_millis(millis);
        let here = ask(&at(last, "14:16:14"));
        places.stand(1, &here, Interest::Own, (now, COURTESY));
        places.stand(2, &here, Interest::Passing, (now, COURTESY));
        let until = places.lets_read(2, &recent, now)?;
        Some((until - begun).as_millis())
    };

    assert_eq!(until_at(100, 0), Some(50));
    assert_eq!(until_at(101, 40), Some(50));
    assert_eq!(until_at(102, 50), None, "one at a time is too slow");
    assert_eq!(until_at(109, 60), None);
    assert_eq!(until_at(110, 70), Some(120));
    assert_eq!(until_at(120, 80), Some(130));
}

#[tokio::test]
async fn an_answer_of_another_server_is_not_used() {
    let database = Postgres::shared().await.database().await;
    onceward_migrations::run(database.pool()).await.unwrap();
    let enqueue = "select onceward.enqueue('orders', 'x'::bytea, 'k')";
    let log = LogDatabase::new(database.url().parse().unwrap(), Schema::default());
    let mut one = LogReader::connect(&log).await.unwrap();
    let mut promoted = LogReader::connect(&log).await.unwrap();
    promoted.session.server.identity.timeline += 1;
    let (reads, shared) = (ask(&at(0, "1:1:")).reads, SharedReads::default());
    let parts = [shared.take_part(), shared.take_part()];
    let (after, own) = (PublishAfter::Flushed, Interest::Own);
    sqlx::query(enqueue).execute(database.pool()).await.unwrap();
    parts[0].read(&mut one, &reads, &after, own).await.unwrap();
    sqlx::query(enqueue).execute(database.pool()).await.unwrap();

    let read = async |reader| parts[1].read(reader, &reads, &after, own).await.unwrap();
    let of_the_one = read(&mut one).await;
    let own = read(&mut promoted).await;

    let rows = |brought: &Brought| brought.as_ref().steps[0].rows.len();
    assert_eq!((rows(&of_the_one), rows(&own)), (1, 2));
}
