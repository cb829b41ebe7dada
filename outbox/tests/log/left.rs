//! What a read says of the rows that it may have left.

use onceward::{CursorRead, Lane, PublishAfter};

use crate::support::{PLENTY, connection, enqueue, execute, migrated, stream};

#[tokio::test]
async fn a_read_that_brings_as_many_rows_as_it_may_says_that_some_may_be_left() {
    let database = migrated().await;
    let (mut reader, _keeper, cursors) = stream(&database).await;
    let mut writer = connection(&database).await;
    for n in 0..3 {
        enqueue(&mut writer, "a", &n.to_string()).await;
    }

    let mut left = Vec::new();
    for limit in [2, 3, 4] {
        let ask = CursorRead {
            lane: Lane::Standard,
            cursor: cursors[1].clone(),
            limit,
            bytes: PLENTY,
        };
        let read = reader.read(&[ask], &PublishAfter::Visible).await.unwrap();
        left.push(read.steps[0].left);
    }

    assert_eq!(left, [true, true, false]);
}

#[tokio::test]
async fn rows_of_which_the_server_counts_more_than_their_texts_are_never_taken_for_all() {
    let database = migrated().await;
    let (mut reader, _keeper, cursors) = stream(&database).await;
    // Written by hand: 500 numbers, which take far more as the server stores them.
    let sql = "
insert into onceward.messages (lane, id, topic, type, headers, payload)
select 1, gen_random_uuid(), 'orders', 'orders', jsonb_object_agg('h' || n, n % 10), ''
from generate_series(1, 2) m, generate_series(1, 500) n
group by m";
    execute(database.pool(), sql).await;
    let counted = "select sum(pg_column_size(headers))::bigint from onceward.messages";
    let counted: i64 = sqlx::query_scalar(counted)
        .fetch_one(database.pool())
        .await
        .unwrap();

    for bytes in [counted / 2, counted - 1, counted + 1] {
        let ask = CursorRead {
            lane: Lane::Standard,
            cursor: cursors[1].clone(),
            limit: 100,
            bytes: usize::try_from(bytes).unwrap(),
        };
        let read = reader.read(&[ask], &PublishAfter::Visible).await.unwrap();
        assert!(read.steps[0].left, "{bytes} of {counted}");
    }
}
