//! W3: what an outbox costs the service: rate and write-ahead log of a business transaction.

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward::{Message, Outbox};
use onceward_testkit::postgres::Database;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Arguments;
use crate::backlog::{KEYS, TOPIC, payload};
use crate::cost::{bytes_each, each};
use crate::outcome::Outcome;
use crate::results::Results;
use crate::world::World;

/// A run of each contestant is cut into this many slices, which take turns: what else the machine does hits all alike.
const SLICES: u32 = 8;

/// Clients that write at a time.
const CLIENTS: [u64; 3] = [1, 8, 16];

/// What the transaction does besides its business.
#[derive(Debug, Clone, Copy)]
enum Contestant {
    /// Nothing.
    Alone,
    /// Enqueues with Onceward.
    Onceward,
    /// Inserts a row of the usual kind: uuid key, partial index on what is not published. Its later update or delete is not counted.
    OrdinaryRow,
    /// The same, with what a message has in Onceward's log too: an id that the application makes, and headers.
    OrdinaryWhole,
    /// The ordinary row, and NOTIFY.
    OrdinaryNotify,
}

impl Contestant {
    const ALL: [Self; 5] = [
        Self::Alone,
        Self::Onceward,
        Self::OrdinaryRow,
        Self::OrdinaryWhole,
        Self::OrdinaryNotify,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Alone => "transaction-alone",
            Self::Onceward => "onceward",
            Self::OrdinaryRow => "ordinary-outbox-row",
            Self::OrdinaryWhole => "ordinary-whole-row",
            Self::OrdinaryNotify => "ordinary-row-notify",
        }
    }
}

const TABLES: &str = "
create table business (id bigint generated always as identity primary key, key text not null, body bytea not null);
create table ordinary_outbox (
  id uuid primary key default gen_random_uuid(), topic text not null, key text, type text not null,
  headers jsonb not null default '{}', payload bytea not null, created_at timestamptz not null default now(), published_at timestamptz);
create index ordinary_outbox_unpublished on ordinary_outbox (created_at) where published_at is null";

/// Removes the oldest thousand of ordinary rows. Served by `ordinary_outbox_unpublished`; locks what it deletes.
const REMOVE: &str = "
delete from ordinary_outbox
where id in (
  select id
  from ordinary_outbox
  where published_at is null
  order by created_at
  limit 1000
)";

pub(crate) async fn measure(
    world: &World,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    let database = world.database().await?;
    sqlx::raw_sql(TABLES).execute(database.pool()).await?;
    let slice = Duration::from_secs(arguments.producer_seconds()) / SLICES;
    for _ in 0..arguments.repeats {
        for clients in CLIENTS {
            let variant = format!("{clients} clients");
            let mut teams = Vec::new();
            for contestant in Contestant::ALL {
                teams.push(Team::new(&database, contestant, clients).await?);
            }
            for _ in 0..SLICES {
                for team in &mut teams {
                    team.write(world, database.pool(), slice).await?;
                }
            }
            for team in teams {
                team.add_to(results, &variant);
            }
        }
        for contestant in [Contestant::Onceward, Contestant::OrdinaryRow] {
            let bytes = period(world, &database, contestant, slice * SLICES).await?;
            let at = ("W3", "8 clients");
            results.add(at, contestant.name(), ("wal_period", "B/tx"), bytes);
        }
    }
    Ok(())
}

/// The write-ahead log of a transaction over a period that begins with empty tables and a checkpoint, after which each page is logged
/// whole once, and ends with the removal of what was written.
async fn period(
    world: &World,
    database: &Database,
    contestant: Contestant,
    time: Duration,
) -> Outcome<f64> {
    let pool = database.pool();
    sqlx::raw_sql("truncate ordinary_outbox")
        .execute(pool)
        .await?;
    empty_log(pool).await?;
    sqlx::raw_sql("checkpoint").execute(pool).await?;
    let mut team = Team::new(database, contestant, 8).await?;
    team.write(world, pool, time).await?;
    let before = wal(pool).await?;
    match contestant {
        Contestant::Alone => {}
        Contestant::Onceward => empty_log(pool).await?,
        Contestant::OrdinaryRow | Contestant::OrdinaryWhole | Contestant::OrdinaryNotify => {
            while sqlx::query(REMOVE).execute(pool).await?.rows_affected() > 0 {}
        }
    }
    team.bytes += wal(pool).await? - before;
    Ok(team.wal())
}

/// Empties each slot of the log that holds rows, by the statements with which a relay empties one. It would not yet do it: to a relay the
/// slot of today is never free, and one that no stream has read is not either.
async fn empty_log(pool: &PgPool) -> Outcome {
    let slots: Vec<i16> = sqlx::query_scalar("select distinct slot from onceward.messages")
        .fetch_all(pool)
        .await?;
    for slot in slots {
        let mut transaction = pool.begin().await?;
        for statement in [
            format!("lock table only onceward.messages_{slot} in access exclusive mode"),
            format!("truncate table only onceward.messages_{slot}"),
            format!("delete from onceward.unrouted where slot = {slot}"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
    }
    Ok(())
}

/// What remains of the rate of a transaction when it enqueues too: eight clients, each for so long.
pub(crate) async fn share(world: &World, time: Duration) -> Outcome<f64> {
    let database = world.database().await?;
    sqlx::raw_sql(TABLES).execute(database.pool()).await?;
    let mut alone = Team::new(&database, Contestant::Alone, 8).await?;
    let mut ours = Team::new(&database, Contestant::Onceward, 8).await?;
    for _ in 0..SLICES {
        alone.write(world, database.pool(), time / SLICES).await?;
        ours.write(world, database.pool(), time / SLICES).await?;
    }
    Ok(ours.rate() / alone.rate())
}

/// The clients of a contestant, and what they wrote. Their connections stay: what a first statement costs is not the matter here.
struct Team {
    contestant: Contestant,
    connections: Vec<PgConnection>,
    transactions: u64,
    time: Duration,
    bytes: i64,
    /// CPU seconds of the clients, and of PostgreSQL.
    client: f64,
    postgres: f64,
}

impl Team {
    async fn new(database: &Database, contestant: Contestant, clients: u64) -> Outcome<Self> {
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(PgConnection::connect(database.url()).await?);
        }
        Ok(Self {
            contestant,
            connections,
            transactions: 0,
            time: Duration::ZERO,
            bytes: 0,
            client: 0.0,
            postgres: 0.0,
        })
    }

    async fn write(&mut self, world: &World, pool: &PgPool, time: Duration) -> Outcome {
        let barrier = Arc::new(Barrier::new(self.connections.len() + 1));
        let mut tasks = JoinSet::new();
        for (client, mut connection) in (0..).zip(self.connections.drain(..)) {
            let (barrier, contestant) = (Arc::clone(&barrier), self.contestant);
            tasks.spawn(async move {
                barrier.wait().await;
                let written = write(&mut connection, contestant, client, time).await;
                written.map(|written| (written, connection))
            });
        }
        let before = wal(pool).await?;
        let meter = world.meter_with(None);
        let (begun, used) = (Instant::now(), meter.used()?);
        barrier.wait().await;
        while let Some(done) = tasks.join_next().await {
            let (written, connection) = done??;
            self.transactions += written;
            self.connections.push(connection);
        }
        self.time += begun.elapsed();
        let after = meter.used()?;
        self.client += after.here - used.here;
        self.postgres += after.postgres - used.postgres;
        self.bytes += wal(pool).await? - before;
        Ok(())
    }

    fn add_to(&self, results: &mut Results, variant: &str) {
        let (at, name) = (("W3", variant), self.contestant.name());
        let cpu = |seconds| each(seconds, self.transactions);
        results.add(at, name, ("rate", "tx/s"), self.rate());
        results.add(at, name, ("wal", "B/tx"), self.wal());
        results.add(at, name, ("cpu_us_client", "us/tx"), cpu(self.client));
        results.add(at, name, ("cpu_us_postgres", "us/tx"), cpu(self.postgres));
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn rate(&self) -> f64 {
        self.transactions as f64 / self.time.as_secs_f64()
    }

    fn wal(&self) -> f64 {
        bytes_each(self.bytes, self.transactions)
    }
}

async fn write(
    connection: &mut PgConnection,
    contestant: Contestant,
    client: u64,
    time: Duration,
) -> Outcome<u64> {
    let outbox = Outbox::new();
    let until = Instant::now() + time;
    let body = payload();
    let mut transactions = 0;
    while Instant::now() < until {
        let key = format!("k{}", (transactions * 16 + client) % KEYS);
        let mut transaction = connection.begin().await?;
        sqlx::query("insert into business (key, body) values ($1, $2)")
            .bind(&key)
            .bind(&body[..100])
            .execute(&mut *transaction)
            .await?;
        match contestant {
            Contestant::Alone => {}
            Contestant::Onceward => {
                let draft = Message::bytes(TOPIC, body.clone()).key(&key);
                outbox.enqueue(&mut transaction, draft).await?;
            }
            Contestant::OrdinaryRow => ordinary(&mut transaction, &key, &body).await?,
            Contestant::OrdinaryWhole => ordinary_whole(&mut transaction, &key, &body).await?,
            Contestant::OrdinaryNotify => {
                ordinary(&mut transaction, &key, &body).await?;
                sqlx::query("notify outbox")
                    .execute(&mut *transaction)
                    .await?;
            }
        }
        transaction.commit().await?;
        transactions += 1;
    }
    Ok(transactions)
}

async fn ordinary(connection: &mut PgConnection, key: &str, body: &[u8]) -> Outcome {
    sqlx::query("insert into ordinary_outbox (topic, key, type, payload) values ($1, $2, $1, $3)")
        .bind(TOPIC)
        .bind(key)
        .bind(body)
        .execute(connection)
        .await?;
    Ok(())
}

async fn ordinary_whole(connection: &mut PgConnection, key: &str, body: &[u8]) -> Outcome {
    const INSERT: &str = "
insert into ordinary_outbox (id, topic, key, type, headers, payload)
values ($1, $2, $3, $4, $5::text::jsonb, $6)";

    sqlx::query(INSERT)
        .bind(Uuid::now_v7())
        .bind(TOPIC)
        .bind(key)
        .bind(TOPIC)
        .bind("{}")
        .bind(body)
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn wal(pool: &PgPool) -> Outcome<i64> {
    let sql = "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
    Ok(sqlx::query_scalar(sql).fetch_one(pool).await?)
}
