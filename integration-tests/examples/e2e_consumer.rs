//! A consumer whose handler writes the ledger's effects, with planted bugs and failpoints compiled in. For the
//! end-to-end tests only. Everything is told by variables whose names begin with `E2E_`.
//!
//! It prints `handling` when its first handler runs: from then on it is the one that works, not one that stands by.

use std::env;
use std::error::Error;
use std::sync::{Arc, Once};
use std::time::Duration;

use onceward_consumer::{
    Backoff, BatchHandler, BatchSettings, BatchTx, CancellationToken, Consumer, Handler,
    HandlerError, HandlerSettings, Limits, Message, Tx,
};
use onceward_kafka::{Kafka, KafkaConfig, KafkaSubscriber, KafkaSubscription};
use onceward_nats::{NatsConfig, NatsSubscriber, SubscriberConfig};
use onceward_sqs::{Sqs, SqsConfig, SqsSubscriber};
use onceward_testkit::ledger::effects;
use sqlx::PgConnection;
use sqlx::postgres::PgPoolOptions;
use tokio::signal::unix::{SignalKind, signal};

/// A handler with small failures.
struct Recorder {
    /// About one attempt in so many fails after it has written.
    fail_one_in: Option<u32>,
    /// About one attempt in so many meets an error of the database and goes on as if nothing were.
    swallow_one_in: Option<u32>,
    /// How long it takes.
    delay: Duration,
    /// A message with this payload kills the process, as one does that takes all its memory.
    deadly: Option<String>,
    /// Messages of this type fail.
    broken: Option<String>,
}

fn happens(one_in: Option<u32>) -> bool {
    one_in.is_some_and(|n| fastrand::u32(0..n.max(1)) == 0)
}

impl Recorder {
    async fn record<'a>(
        &self,
        messages: impl Iterator<Item = &'a Message> + Send,
        tx: &mut PgConnection,
    ) -> Result<(), HandlerError> {
        static FIRST: Once = Once::new();

        FIRST.call_once(|| println!("handling"));
        tokio::time::sleep(self.delay).await;
        for message in messages {
            let id = message.id.as_uuid().ok_or("the id is no uuid")?;
            effects::record(tx, id).await?;
            if (self.deadly.as_ref()).is_some_and(|deadly| message.payload == deadly.as_bytes()) {
                std::process::abort();
            }
            if self.broken.as_deref() == Some(message.kind.as_str()) {
                return Err("its type is broken".into());
            }
        }
        if happens(self.fail_one_in) {
            return Err("planned to fail".into());
        }
        if happens(self.swallow_one_in) {
            // The transaction is aborted by this, and a commit would be a rollback that nobody is told of.
            drop(sqlx::query("select 1 / 0").execute(&mut *tx).await);
        }
        Ok(())
    }
}

impl Handler for Recorder {
    async fn handle(&self, message: &Message, tx: &mut Tx) -> Result<(), HandlerError> {
        self.record(std::iter::once(message), tx).await
    }
}

impl BatchHandler for Recorder {
    async fn handle(
        &self,
        messages: &[Arc<Message>],
        tx: &mut BatchTx,
    ) -> Result<(), HandlerError> {
        self.record(messages.iter().map(AsRef::as_ref), tx).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let pool = PgPoolOptions::new()
        .max_connections(20)
        .connect(&setting("E2E_DATABASE_URL")?)
        .await?;
    let recorder = Recorder {
        fail_one_in: number("E2E_FAIL_ONE_IN"),
        swallow_one_in: number("E2E_SWALLOW_ONE_IN"),
        delay: Duration::from_millis(number("E2E_DELAY_MS").unwrap_or(0).into()),
        deadly: env::var("E2E_DEADLY").ok(),
        broken: env::var("E2E_BROKEN_TYPE").ok(),
    };
    let settings = HandlerSettings {
        deadline: Duration::from_millis(number("E2E_DEADLINE_MS").unwrap_or(30_000).into()),
        // Planned failures must never add up to a dead letter.
        attempts: number("E2E_ATTEMPTS").unwrap_or(1_000),
        backoff: Backoff {
            base: Duration::from_millis(5),
            max: Duration::from_millis(100),
        },
        defer_after: Duration::from_millis(number("E2E_DEFER_AFTER_MS").unwrap_or(5_000).into()),
        ..HandlerSettings::default()
    };
    let batch = number("E2E_BATCH");
    let settings = HandlerSettings {
        concurrency: batch.map(|_| 4),
        batch: BatchSettings {
            messages: usize::try_from(batch.unwrap_or(1))?,
            ..BatchSettings::default()
        },
        ..settings
    };
    let builder = Consumer::builder(&setting("E2E_CONSUMER")?);
    let builder = match batch {
        Some(_) => builder.batch("*", recorder),
        None => builder.handler("*", recorder),
    };
    let builder = match number("E2E_BY_SEQUENCE") {
        Some(_) => builder.dedupe_by_sequence(),
        None => builder,
    };
    let consumer = builder
        .pool(pool)
        .defaults(settings)
        .limits(Limits {
            grace: Duration::from_secs(5),
            ..Limits::default()
        })
        .build()?;
    let stop = stop_on_sigterm()?;
    match setting("E2E_BROKER")?.as_str() {
        "nats" => consumer.run(nats().await?, stop).await?,
        "sqs" => consumer.run(sqs().await?, stop).await?,
        _ => consumer.run(kafka()?, stop).await?,
    }
    Ok(())
}

async fn sqs() -> Result<SqsSubscriber, Box<dyn Error>> {
    let queues = topics()?;
    let mut server = SqsConfig::emulator(setting("E2E_ADDRESS")?);
    if queues.iter().any(|queue| !queue.ends_with(".fifo")) {
        server = server.without_order();
    }
    let mut reads = onceward_sqs::SubscriberConfig::new(queues);
    reads.visibility = Duration::from_secs(2);
    reads.wait = Duration::from_secs(1);
    Ok(Sqs::new(server).subscriber(reads).await?)
}

async fn nats() -> Result<NatsSubscriber, Box<dyn Error>> {
    let server = NatsConfig::new([setting("E2E_ADDRESS")?]);
    let mut reads = SubscriberConfig::new(setting("E2E_CONSUMER")?, topics()?);
    reads.takeover_after = Duration::from_secs(1);
    reads.ack_wait = Duration::from_secs(5);
    Ok(NatsSubscriber::join(&server, reads).await?)
}

fn kafka() -> Result<KafkaSubscriber, Box<dyn Error>> {
    let cluster = KafkaConfig::new(setting("E2E_ADDRESS")?)
        .property("session.timeout.ms", setting("E2E_SESSION_MS")?)
        .property("heartbeat.interval.ms", "300");
    let mut reads = KafkaSubscription::new(setting("E2E_CONSUMER")?, topics()?);
    reads.commit_every = Duration::from_millis(200);
    Ok(Kafka::new(cluster)?.subscriber(reads)?)
}

fn topics() -> Result<Vec<String>, String> {
    let topics = setting("E2E_TOPICS")?;
    Ok(topics.split(',').map(str::to_owned).collect())
}

fn setting(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("set {name}"))
}

fn number(name: &str) -> Option<u32> {
    env::var(name).ok()?.parse().ok()
}

fn stop_on_sigterm() -> Result<CancellationToken, std::io::Error> {
    let stop = CancellationToken::new();
    let (stopping, mut term) = (stop.clone(), signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        term.recv().await;
        stopping.cancel();
    });
    Ok(stop)
}
