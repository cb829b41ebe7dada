//! What operators see and do.

mod parked;
mod streams;

use onceward::schema::{self, StreamOverview};
use onceward::{Keeper, Lane, LogAdmin, Park, Schema};
use onceward_core::ErrorKind;
use onceward_testkit::postgres::Database;

use crate::support::{connection, enqueue, execute, log_of, read, stream};

async fn streams(database: &Database) -> Vec<StreamOverview> {
    let mut connection = connection(database).await;
    schema::overview(&mut connection, &Schema::default())
        .await
        .unwrap()
}

async fn with_parked(database: &Database) -> (LogAdmin, Keeper) {
    let (mut reader, mut keeper, mut cursors) = stream(database).await;
    let mut writer = connection(database).await;
    for payload in ["one", "two"] {
        enqueue(&mut writer, "k", payload).await;
    }
    let rows = read(&mut reader, Lane::Standard, &mut cursors[1], 10).await;
    let parks: Vec<Park> = rows
        .into_iter()
        .map(|row| Park {
            lane: row.lane,
            message: row.into_message(),
            kind: ErrorKind::Rejected,
            error: "no".to_owned(),
        })
        .collect();
    keeper.park(&parks).await.unwrap();
    (LogAdmin::connect(&log_of(database)).await.unwrap(), keeper)
}

/// Opens the detour of the key of the parked messages, as the lease holder does where a stream holds keys.
async fn hold(database: &Database) {
    execute(
        database.pool(),
        "insert into onceward.cursors (stream, lane, detour, last_seq, snapshot)
         select stream, lane, 'key:orders:k', last_seq, snapshot
         from onceward.cursors
         where stream = 'events' and lane = 1 and detour = ''",
    )
    .await;
}
