//! A database, a broker in memory, and a consumer that runs beside the test.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "part of tests only"
)]

mod gate;
pub(crate) mod scripted;
mod watched;

use std::time::Duration;

use bytes::Bytes;
use onceward_consumer::{
    Backoff, BatchTx, Consumer, ConsumerBuilder, ConsumerError, HandlerError, HandlerSettings, Tx,
};
use onceward_core::{MAX_PAYLOAD, Message, Source, Subscriber};
use onceward_memory::MemoryBroker;
use onceward_testkit::postgres::{Database, Postgres};
use onceward_testkit::proxy::Proxy;
use onceward_testkit::wait;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use gate::{Gate, pass_the_gate};
use watched::{Reads, Watched};

pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const TOPIC: &str = "orders.created";

#[derive(serde::Deserialize)]
pub(crate) struct Order {
    pub(crate) order: i64,
}

/// Writes the effect: no unique constraint, so that a second one would be seen.
pub(crate) async fn write_effect(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
    effect(event.order, tx).await
}

pub(crate) async fn effect(order: i64, tx: &mut Tx) -> Result<(), HandlerError> {
    sqlx::query("insert into effects (order_id, message) values ($1, $2)")
        .bind(order)
        .bind(tx.idempotency_key())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// Writes the effects of a batch, as [`effect`] but without its message.
pub(crate) async fn effects_of(events: &[Order], tx: &mut BatchTx) -> Result<(), HandlerError> {
    for event in events {
        sqlx::query("insert into effects (order_id) values ($1)")
            .bind(event.order)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

pub(crate) struct Stage {
    pub(crate) database: Database,
    pub(crate) broker: MemoryBroker,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::on(Postgres::shared().await).await
    }

    pub(crate) async fn on(postgres: &Postgres) -> Self {
        let database = postgres.database().await;
        onceward_migrations::run(database.pool()).await.unwrap();
        let tables = "create table effects (
            n bigint generated always as identity, order_id bigint not null, message uuid);
            grant select, insert on effects to public";
        sqlx::raw_sql(tables)
            .execute(database.pool())
            .await
            .unwrap();
        Self {
            database,
            broker: MemoryBroker::new(),
        }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    /// As a relay would.
    pub(crate) fn publish(&self, order: i64, key: Option<i64>) -> Uuid {
        self.publish_of(TOPIC, order, key)
    }

    /// As a relay would, with a type.
    pub(crate) fn publish_of(&self, kind: &str, order: i64, key: Option<i64>) -> Uuid {
        let event = serde_json::json!({ "order": order });
        let mut draft = Message::json(TOPIC, &event).unwrap().kind(kind);
        if let Some(key) = key {
            draft = draft.key(key);
        }
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.source = Some(Source::try_from("/shop").unwrap());
        message.seq = Some(order + 1);
        let id = message.id.as_uuid().unwrap();
        self.broker.publish(message).unwrap();
        id
    }

    /// As a relay would, with a time after which it is of no use.
    pub(crate) fn publish_until(&self, order: i64, at: OffsetDateTime) {
        let event = serde_json::json!({ "order": order });
        let draft = Message::json(TOPIC, &event).unwrap();
        let draft = draft.key(order).expires_at(at);
        let mut message = draft.finish(MAX_PAYLOAD).unwrap().message;
        message.seq = Some(1);
        self.broker.publish(message).unwrap();
    }

    /// Sets the clock that the consumer's statements see so many minutes ahead of this machine's, at once for connections that are
    /// made after the first time. What is looked at is how far apart they are: it is as if ours were wrong the other way.
    pub(crate) async fn set_database_clock(&self, minutes: i32) {
        let sql = format!(
            "create schema if not exists skewed;
             grant usage on schema skewed to public;
             create or replace function skewed.clock_timestamp() returns timestamptz language sql volatile
               as $$ select pg_catalog.clock_timestamp() + interval '{minutes} minutes' $$;
             do $$ begin
               execute format('alter database %I set search_path = skewed, pg_catalog, public', current_database());
             end $$"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(self.pool())
            .await
            .unwrap();
    }

    /// As somebody else would.
    pub(crate) fn put(&self, headers: &[(&str, &[u8])], payload: &[u8]) {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Bytes::copy_from_slice(value)))
            .collect();
        let payload = Bytes::copy_from_slice(payload);
        self.broker.put(TOPIC, headers, payload).unwrap();
    }

    /// A builder whose retries are quick.
    pub(crate) fn builder(&self) -> ConsumerBuilder {
        Consumer::builder("billing")
            .pool(self.pool().clone())
            .defaults(quick(3))
    }

    pub(crate) fn run(&self, builder: ConsumerBuilder) -> Running {
        Self::run_on(builder, self.broker.subscriber("billing", &[TOPIC]))
    }

    /// The same, with counts of what it reads.
    pub(crate) fn run_watched(&self, builder: ConsumerBuilder) -> (Running, Reads) {
        let reads = Reads::default();
        let subscriber = Watched {
            subscriber: self.broker.subscriber("billing", &[TOPIC]),
            reads: reads.clone(),
        };
        (Self::run_on(builder, subscriber), reads)
    }

    fn run_on(builder: ConsumerBuilder, subscriber: impl Subscriber) -> Running {
        let consumer = builder.build().unwrap();
        let stop = CancellationToken::new();
        Running {
            task: tokio::spawn(consumer.run(subscriber, stop.clone())),
            stop,
        }
    }

    /// The orders whose effects are there, in the order of their writes.
    pub(crate) async fn effects(&self) -> Vec<i64> {
        sqlx::query_scalar("select order_id from effects order by n")
            .fetch_all(self.pool())
            .await
            .unwrap()
    }

    /// The outcomes of all marks, in the order in which they were settled.
    pub(crate) async fn outcomes(&self) -> Vec<i16> {
        sqlx::query_scalar("select outcome from onceward.processed_messages order by settled_at")
            .fetch_all(self.pool())
            .await
            .unwrap()
    }

    pub(crate) async fn settled(&self, count: usize) {
        let what = format!("{count} marks");
        wait::until_true(SOON, &what, || async {
            self.outcomes().await.len() == count
        })
        .await;
    }

    /// How many messages wait.
    pub(crate) async fn retries(&self) -> usize {
        let count: i64 = sqlx::query_scalar("select count(*) from onceward.retries")
            .fetch_one(self.pool())
            .await
            .unwrap();
        usize::try_from(count).unwrap()
    }

    pub(crate) async fn wait_for_retries(&self, count: usize) {
        let what = format!("{count} messages that wait");
        wait::until_true(SOON, &what, || async { self.retries().await == count }).await;
    }

    /// Neither a message nor a key.
    pub(crate) async fn nothing_waits(&self) {
        let held: i64 = sqlx::query_scalar("select count(*) from onceward.held_keys")
            .fetch_one(self.pool())
            .await
            .unwrap();
        assert_eq!((self.retries().await, held), (0, 0));
    }

    /// Each order took effect once, and those of a key, the order modulo `keys`, in order.
    pub(crate) async fn in_order(&self, keys: i64) {
        let mut last = std::collections::HashMap::new();
        for order in self.effects().await {
            let before = last.insert(order % keys, order);
            assert!(
                before.is_none_or(|before| before < order),
                "{order} came after {before:?}"
            );
        }
    }

    /// Reason, error and attempts of all dead letters, in order.
    pub(crate) async fn letters(&self) -> Vec<(String, String, i32)> {
        sqlx::query_as("select reason, error, attempts from onceward.dead_letters order by id")
            .fetch_all(self.pool())
            .await
            .unwrap()
    }
}

/// A pool whose connections go through a proxy.
pub(crate) async fn through_proxy(stage: &Stage) -> (Proxy, PgPool) {
    let direct: PgConnectOptions = stage.database.url().parse().unwrap();
    let proxy = Proxy::to(direct.get_port()).await;
    let options = direct.host("127.0.0.1").port(proxy.port());
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(3))
        .connect_with(options)
        .await
        .unwrap();
    (proxy, pool)
}

/// So many attempts, milliseconds apart.
pub(crate) fn quick(attempts: u32) -> HandlerSettings {
    HandlerSettings {
        attempts,
        backoff: Backoff {
            base: Duration::from_millis(1),
            max: Duration::from_millis(20),
        },
        ..HandlerSettings::default()
    }
}

pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), ConsumerError>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.task)
            .await
            .expect("the consumer stops in time")
            .expect("the consumer does not panic")
            .expect("the consumer ends well");
    }

    /// As a crash: nothing is waited for.
    pub(crate) async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }
}
