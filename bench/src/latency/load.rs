//! What is written, and at which pace.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use onceward::{Message, Outbox};
use sqlx::AssertSqlSafe;
use tokio::time::{self, MissedTickBehavior, interval_at};
use uuid::Uuid;

use super::{Times, WRITERS};
use crate::backlog::{KEYS, TOPIC, payload, payload_of};
use crate::broker::IdIn;
use crate::broker::bare::Single;
use crate::outcome::Outcome;

/// Seconds at the beginning that do not count, for a relay of ours.
const WARM_UP: u64 = 2;

/// How a message is written.
#[derive(Clone)]
pub(crate) enum How {
    /// By Onceward.
    Enqueue,
    /// By Onceward, and published at once without waiting for a relay.
    EnqueueAndPublish(Arc<Single>),
    /// By a statement with the id, the key and the payload, which holds both.
    Insert(String),
}

/// What is written.
#[derive(Clone)]
pub(crate) struct Load {
    /// Transactions a second.
    pub(crate) rate: u64,
    /// Seconds that count.
    pub(crate) seconds: u64,
    /// Seconds before them that do not.
    pub(crate) warm_up: u64,
    pub(crate) how: How,
    /// Messages that are at the broker before.
    pub(crate) already: usize,
}

impl Load {
    /// Messages of ours, to a fresh route.
    pub(crate) const fn enqueued(rate: u64, seconds: u64) -> Self {
        Self {
            rate,
            seconds,
            warm_up: WARM_UP,
            how: How::Enqueue,
            already: 0,
        }
    }

    /// How many messages are written.
    pub(crate) const fn messages(&self) -> u64 {
        self.rate * (self.seconds + self.warm_up) / WRITERS * WRITERS
    }

    pub(super) const fn id_in(&self) -> IdIn {
        match self.how {
            How::Enqueue | How::EnqueueAndPublish(_) => IdIn::Header,
            How::Insert(_) => IdIn::Payload,
        }
    }
}

/// Writes at a steady pace, also when the database stalls: the next ones are late then, not left out. Writers take turns, as far as a timer
/// of a millisecond can: together they would write eight messages at once, and nothing until the next eight.
pub(super) async fn write(
    pool: &sqlx::PgPool,
    writer: u64,
    how: &How,
    (messages, pace): (u64, Duration),
    times: &Mutex<Times>,
) -> Outcome {
    let mut connection = pool.acquire().await?;
    let outbox = Outbox::new();
    let turn = pace * u32::try_from(writer)? / u32::try_from(WRITERS)?;
    let mut pace = interval_at(time::Instant::now() + turn, pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for n in 0..messages {
        pace.tick().await;
        let id = Uuid::now_v7();
        let key = format!("k{}", (n * WRITERS + writer) % KEYS);
        // One statement, one transaction: its return is the commit's.
        match how {
            How::Enqueue | How::EnqueueAndPublish(_) => {
                let draft = Message::bytes(TOPIC, payload()).key(key.as_str()).id(id);
                outbox.enqueue(&mut connection, draft).await?;
            }
            How::Insert(statement) => {
                let insert = sqlx::query(AssertSqlSafe(statement.as_str())).bind(id);
                let insert = insert.bind(&key).bind(payload_of(id, &key));
                insert.execute(&mut *connection).await?;
            }
        }
        let now = Instant::now();
        if let How::EnqueueAndPublish(client) = how {
            client.send(id, &key).await?;
        }
        times
            .lock()
            .map_err(|_| "poisoned")?
            .committed
            .insert(id, now);
    }
    Ok(())
}
