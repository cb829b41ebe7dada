//! About the least that a relay which polls can do: it asks for the newest rows and hands them to the broker's own client.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::task::{JoinSet, spawn_blocking};
use uuid::Uuid;

use crate::broker::bare::Single;
use crate::outcome::Outcome;

/// Between two polls, by a thread: timers count in whole milliseconds.
const PAUSE: Duration = Duration::from_micros(500);

/// The rows of the lane behind a number. Served by `messages_lane_seq`.
const BEHIND: &str = "
select seq, id, key, payload
from onceward.messages
where lane = 1 and seq > $1
order by seq";

/// Polls until what it gives is dropped, or an error. It goes on behind the last number up to which none is missing, as only a workload can in which
/// nothing is ever rolled back. No lease, no cursor that is stored, no wait for PostgreSQL's disk or for an ack, no order by key.
pub(super) async fn poll(url: &str, client: Arc<Single>) -> Outcome<JoinSet<Outcome<Infallible>>> {
    let mut connection = PgConnection::connect(url).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut complete, mut beyond) = (0, BTreeSet::new());
        loop {
            let rows: Vec<(i64, Uuid, String, Vec<u8>)> = sqlx::query_as(BEHIND)
                .bind(complete)
                .fetch_all(&mut connection)
                .await?;
            for (seq, id, key, _) in rows {
                if beyond.insert(seq) {
                    client.send(id, &key).await?;
                }
            }
            while beyond.remove(&(complete + 1)) {
                complete += 1;
            }
            spawn_blocking(|| std::thread::sleep(PAUSE)).await?;
        }
    });
    Ok(tasks)
}
