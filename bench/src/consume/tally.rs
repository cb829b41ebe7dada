//! A handler that does nothing but count, and what a run came to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use onceward_consumer::{
    BatchHandler, BatchTx, CancellationToken, ConsumerError, Handler, HandlerError, Message, Tx,
};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::DEADLINE;
use crate::cost::{Clock, Figure, Meter, Stage, bytes_each};
use crate::outcome::Outcome;
use crate::producer::wal;
use crate::results::Results;

/// What this run has marked: messages that wait have another outcome.
const MARKED: &str =
    "select count(*) from onceward.processed_messages where consumer = 'bench' and outcome = 0";

/// What a contestant came to.
#[derive(Debug, Clone)]
pub(crate) struct Handled {
    pub(crate) rate: f64,
    pub(crate) figures: Vec<Figure>,
}

impl Handled {
    /// Of a client without a database.
    pub(crate) fn by_client(stage: Stage) -> Self {
        let figures = vec![
            ("cpu_us_client", "us/msg", stage.used.here),
            ("cpu_us_broker", "us/msg", stage.used.broker),
        ];
        Self {
            rate: stage.rate,
            figures,
        }
    }

    /// Of a client that stores in a database, with the bytes of write-ahead log of a message.
    pub(crate) fn stored_by_client(stage: Stage, wal: f64) -> Self {
        let mut handled = Self::by_client(stage);
        handled.add_database(stage, wal);
        handled
    }

    /// Of transactions without a broker.
    pub(crate) fn transactions(stage: Stage, wal: f64) -> Self {
        let figures = vec![("cpu_us_client", "us/msg", stage.used.here)];
        let mut handled = Self {
            rate: stage.rate,
            figures,
        };
        handled.add_database(stage, wal);
        handled
    }

    /// Of a consumer of ours, whose CPU is that of this process.
    pub(crate) fn consumed(stage: Stage, wal: f64, duplicates: u64) -> Self {
        let figures = vec![
            ("cpu_us_consumer", "us/msg", stage.used.here),
            ("cpu_us_broker", "us/msg", stage.used.broker),
        ];
        let mut handled = Self {
            rate: stage.rate,
            figures,
        };
        handled.add_database(stage, wal);
        handled.with_duplicates(duplicates)
    }

    fn add_database(&mut self, stage: Stage, wal: f64) {
        let postgres = ("cpu_us_postgres", "us/msg", stage.used.postgres);
        self.figures.extend([postgres, ("wal", "B/msg", wal)]);
    }

    /// How many times a message was handled that had been handled.
    pub(crate) fn with_duplicates(mut self, duplicates: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        self.figures.push(("duplicates", "msg", duplicates as f64));
        self
    }

    pub(crate) fn add_to(&self, results: &mut Results, variant: &str, contestant: &'static str) {
        let at = ("W4", variant);
        results.add(at, contestant, ("rate", "msg/s"), self.rate);
        for (metric, unit, value) in &self.figures {
            results.add(at, contestant, (metric, unit), *value);
        }
    }
}

/// What the handler and the measurement share.
#[derive(Debug)]
pub(crate) struct Tally {
    messages: u64,
    meter: Meter,
    handled: AtomicU64,
    /// The clock that started when the handler was called first, and with how many messages: what those took is not known.
    first: OnceLock<(Clock, u64)>,
    done: Notify,
}

impl Tally {
    pub(crate) fn of(messages: u64, meter: Meter) -> Arc<Self> {
        Arc::new(Self {
            messages,
            meter,
            handled: AtomicU64::new(0),
            first: OnceLock::new(),
            done: Notify::new(),
        })
    }

    fn add(&self, count: u64) -> Outcome {
        if self.first.get().is_none() {
            let clock = self.meter.start()?;
            self.first.get_or_init(|| (clock, count));
        }
        if self.handled.fetch_add(count, Ordering::Relaxed) + count >= self.messages {
            self.done.notify_one();
        }
        Ok(())
    }

    /// From the first call of the handler until all are marked in the database: waits for that.
    async fn stage(&self, pool: &PgPool) -> Outcome<Stage> {
        timeout(DEADLINE, self.done.notified()).await?;
        let wanted = i64::try_from(self.messages)?;
        let marked = async {
            // A batch that was rolled back is handled once more.
            while sqlx::query_scalar::<_, i64>(MARKED).fetch_one(pool).await? < wanted {
                sleep(Duration::from_millis(2)).await;
            }
            Outcome::Ok(())
        };
        timeout(DEADLINE, marked).await??;
        let (clock, count) = self.first.get().ok_or("nothing was handled")?;
        clock.stop(self.messages - count)
    }

    /// Lets consumers run until all are marked, stops them, and tells what that came to.
    pub(crate) async fn watch(
        &self,
        pool: &PgPool,
        stop: &CancellationToken,
        mut running: JoinSet<Result<(), ConsumerError>>,
    ) -> Outcome<Handled> {
        let before = wal(pool).await?;
        let stage = self.stage(pool).await?;
        let written = wal(pool).await? - before;
        stop.cancel();
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        let duplicates = self.handled.load(Ordering::Relaxed) - self.messages;
        let wal = bytes_each(written, self.messages);
        Ok(Handled::consumed(stage, wal, duplicates))
    }
}

/// Counts, and does nothing.
#[derive(Debug)]
pub(crate) struct Count(pub(crate) Arc<Tally>);

impl Handler for Count {
    async fn handle(&self, _: &Message, _: &mut Tx) -> Result<(), HandlerError> {
        Ok(self.0.add(1)?)
    }
}

impl BatchHandler for Count {
    async fn handle(&self, messages: &[Arc<Message>], _: &mut BatchTx) -> Result<(), HandlerError> {
        Ok(self.0.add(u64::try_from(messages.len())?)?)
    }
}
