//! Rows that commit after later ones were read.

use onceward::LogRow;
use onceward::{Cursor, CursorRead, Keeper, Lane, LogReader, PublishAfter, Step};
use onceward_testkit::postgres::Database;
use sqlx::Connection;

use crate::support::{PLENTY, connection, enqueue, migrated, pairs, read, shown, stream};

/// A stream that has read past a transaction of these payloads, which has committed since.
async fn passed(database: &Database, payloads: &[String]) -> (LogReader, Keeper, Cursor) {
    let (mut reader, keeper, [_, mut cursor, _]) = stream(database).await;
    let (mut slow, mut quick) = (connection(database).await, connection(database).await);
    let mut transaction = slow.begin().await.unwrap();
    for payload in payloads {
        enqueue(&mut transaction, "late", payload).await;
    }
    enqueue(&mut quick, "b", "1").await;
    let seen = shown(read(&mut reader, Lane::Standard, &mut cursor, 10).await);
    assert_eq!(seen, pairs(&[("b", "1")]));
    transaction.commit().await.unwrap();
    (reader, keeper, cursor)
}

/// One read behind `cursor`.
async fn step(reader: &mut LogReader, cursor: &Cursor, limit: usize, bytes: usize) -> Step<LogRow> {
    let ask = CursorRead {
        lane: Lane::Standard,
        cursor: cursor.clone(),
        limit,
        bytes,
    };
    let read = reader.read(&[ask], &PublishAfter::Visible).await.unwrap();
    read.steps.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_message_that_commits_after_a_later_one_is_delivered_late_and_once() {
    let database = migrated().await;
    let (mut reader, _keeper, mut cursors) = stream(&database).await;
    let (mut slow, mut quick) = (connection(&database).await, connection(&database).await);
    let mut transaction = slow.begin().await.unwrap();
    enqueue(&mut transaction, "a", "slow").await;
    enqueue(&mut quick, "b", "quick").await;

    let cursor = &mut cursors[1];
    assert_eq!(
        shown(read(&mut reader, Lane::Standard, cursor, 10).await),
        pairs(&[("b", "quick")])
    );

    transaction.commit().await.unwrap();
    enqueue(&mut quick, "b", "next").await;
    assert_eq!(
        shown(read(&mut reader, Lane::Standard, cursor, 10).await),
        pairs(&[("a", "slow"), ("b", "next")])
    );
    assert!(
        read(&mut reader, Lane::Standard, cursor, 10)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_large_late_transaction_comes_page_by_page_before_anything_new() {
    let database = migrated().await;
    let payloads: Vec<String> = (1..=5).map(|n| n.to_string()).collect();
    let (mut reader, _keeper, mut cursor) = passed(&database, &payloads).await;
    enqueue(&mut connection(&database).await, "b", "2").await;

    let mut pages = Vec::new();
    loop {
        let page = read(&mut reader, Lane::Standard, &mut cursor, 2).await;
        if page.is_empty() {
            break;
        }
        pages.push(shown(page));
    }

    assert_eq!(
        pages,
        [
            pairs(&[("late", "1"), ("late", "2")]),
            pairs(&[("late", "3"), ("late", "4")]),
            pairs(&[("late", "5")]),
            pairs(&[("b", "2")]),
        ]
    );
}

#[tokio::test]
async fn late_rows_that_exceed_the_bytes_come_page_by_page() {
    let database = migrated().await;
    let large = "x".repeat(50_000);
    let payloads: Vec<String> = (1..=3).map(|n| format!("{n}{large}")).collect();
    let (mut reader, _keeper, mut cursor) = passed(&database, &payloads).await;

    let mut seqs = Vec::new();
    for _ in 0..3 {
        let step = step(&mut reader, &cursor, 100, 1_000).await;
        seqs.extend(step.rows.iter().map(|row| row.seq));
        cursor = step.after;
    }

    assert_eq!(seqs, [1, 2, 3]);
    assert!(cursor.paging.is_none());
}

#[tokio::test]
async fn late_rows_that_just_fill_a_page_leave_nothing() {
    let database = migrated().await;
    let payloads = ["1", "2"].map(str::to_owned);
    let (mut reader, _keeper, cursor) = passed(&database, &payloads).await;

    for (limit, left) in [(1, true), (2, false), (3, false)] {
        let step = step(&mut reader, &cursor, limit, PLENTY).await;
        assert_eq!(step.rows.len(), limit.min(2));
        assert_eq!((step.left, step.after.paging.is_some()), (left, left));
    }
}
