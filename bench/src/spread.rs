//! W4: what more members bring on NATS: eight partitions and a handler that takes its time, handled by four members beside one.
//!
//! Each member handles one message at a time. The clock starts when everything lies in the stream and each member owns its
//! share: how long it takes to share the partitions out is not measured.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use onceward_consumer::{
    CancellationToken, Consumer, ConsumerError, Handler, HandlerError, Limits, Message, Tx,
};
use onceward_core::{
    Batch, Key, MAX_PAYLOAD, Outgoing, Publisher as _, RouteTemplate, Routes, Source, Topic,
};
use onceward_nats::{NatsConfig, NatsPublisher, NatsSubscriber, SubscriberConfig};
use onceward_testkit::postgres::Database;
use onceward_testkit::unique;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::backlog::{KEYS, TOPIC, payload};
use crate::broker::Broker;
use crate::consume::DEADLINE;
use crate::consume::tally::Handled;
use crate::cost::bytes_each;
use crate::outcome::Outcome;
use crate::producer::wal;
use crate::results::Results;
use crate::world::World;

/// Messages of one run.
const MESSAGES: u64 = 1_000;

const PARTITIONS: usize = 8;

/// What a handler takes for a message.
const TAKES: Duration = Duration::from_millis(2);

/// How many members there are, and what their figure is called.
const CONTESTANTS: [(usize, &str); 2] = [(1, "one-member"), (4, "onceward")];

pub(crate) async fn measure(world: &World, results: &mut Results) -> Outcome {
    for (members, contestant) in CONTESTANTS {
        let handled = Box::pin(handle(world, members)).await?;
        handled.add_to(results, "nats-spread", contestant);
    }
    Ok(())
}

/// What all members have handled so far.
#[derive(Debug, Default)]
struct Shares {
    count: u64,
    /// The partitions that each member had messages of.
    owned: BTreeMap<usize, BTreeSet<String>>,
}

/// What the members and the measurement share.
#[derive(Debug)]
struct Board {
    routes: Routes,
    // Handlers of all members write it, for a few lookups at a time.
    handled: Mutex<Shares>,
    count: watch::Sender<u64>,
    /// Whether handlers go on.
    open: watch::Sender<bool>,
}

impl Board {
    fn new(routes: Routes) -> Self {
        Self {
            routes,
            handled: Mutex::default(),
            count: watch::Sender::new(0),
            open: watch::Sender::new(true),
        }
    }

    fn note(&self, member: usize, key: &Key) {
        let partition = self.routes.of_key(key).to_string();
        let mut handled = self.handled.lock().unwrap_or_else(PoisonError::into_inner);
        handled.count += 1;
        handled.owned.entry(member).or_default().insert(partition);
        self.count.send_replace(handled.count);
    }

    fn count(&self) -> u64 {
        *self.count.borrow()
    }

    async fn handled(&self, count: u64) -> Outcome {
        let mut seen = self.count.subscribe();
        timeout(DEADLINE, seen.wait_for(|seen| *seen >= count)).await??;
        Ok(())
    }

    /// How many members handled messages since the last look, if each had its share of the partitions and no more.
    fn shared_by(&self) -> Option<usize> {
        let mut handled = self.handled.lock().unwrap_or_else(PoisonError::into_inner);
        let owned = std::mem::take(&mut handled.owned);
        let even = |partitions: &BTreeSet<String>| partitions.len() * owned.len() == PARTITIONS;
        owned.values().all(even).then_some(owned.len())
    }
}

/// A member's handler: it waits as one that asks a service would, and tells.
#[derive(Debug)]
struct Slow {
    member: usize,
    board: Arc<Board>,
}

impl Handler for Slow {
    async fn handle(&self, message: &Message, _: &mut Tx) -> Result<(), HandlerError> {
        let mut open = self.board.open.subscribe();
        open.wait_for(|open| *open).await?;
        tokio::time::sleep(TAKES).await;
        if let Some(key) = &message.key {
            self.board.note(self.member, key);
        }
        Ok(())
    }
}

async fn handle(world: &World, members: usize) -> Outcome<Handled> {
    let database = world.database().await?;
    let (stream, routes) = stream(world).await?;
    let board = Arc::new(Board::new(routes));
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    for member in 0..members {
        let board = Arc::clone(&board);
        let handler = Slow { member, board };
        join(world, &database, &stream, handler, &stop, &mut running).await?;
    }
    let config = NatsConfig::new([world.nats_url()]);
    let mut session = NatsPublisher::connect(&config).await?;
    let mut sent = 0;
    let begun = Instant::now();
    while board.shared_by() != Some(members) {
        if begun.elapsed() > DEADLINE {
            return Err("the members do not share the partitions evenly".into());
        }
        publish(&mut session, &board.routes, sent..sent + 100).await?;
        sent += 100;
        board.handled(sent).await?;
    }
    board.open.send_replace(false);
    publish(&mut session, &board.routes, sent..sent + MESSAGES).await?;
    let (written, clock) = (
        wal(database.pool()).await?,
        world.meter(Broker::Nats).start()?,
    );
    board.open.send_replace(true);
    board.handled(sent + MESSAGES).await?;
    let stage = clock.stop(MESSAGES)?;
    let written = wal(database.pool()).await? - written;
    stop.cancel();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    if board.shared_by() != Some(members) {
        return Err("partitions moved while they were measured".into());
    }
    session.close(Duration::from_secs(5)).await;
    let duplicates = board.count() - sent - MESSAGES;
    let wal = bytes_each(written, MESSAGES);
    Ok(Handled::consumed(stage, wal, duplicates))
}

/// A fresh stream, with the routes of its topic.
async fn stream(world: &World) -> Outcome<(String, Routes)> {
    let name = unique("spread");
    let template = format!("{name}.{{partition/{PARTITIONS}}}");
    let template = RouteTemplate::new(&template, BTreeMap::new())?;
    let config = async_nats::jetstream::stream::Config {
        name: name.clone(),
        subjects: vec![format!("{name}.*")],
        ..Default::default()
    };
    let jetstream = async_nats::jetstream::new(world.nats_client().await?);
    jetstream.create_stream(config).await?;
    Ok((name, template.routes(&Topic::try_from(TOPIC)?)))
}

async fn join(
    world: &World,
    database: &Database,
    stream: &str,
    handler: Slow,
    stop: &CancellationToken,
    running: &mut JoinSet<Result<(), ConsumerError>>,
) -> Outcome {
    let limits = Limits {
        concurrency: 1,
        ..Limits::default()
    };
    // One for the handler, the others for what a consumer does beside it.
    let pool = PgPoolOptions::new().max_connections(4);
    let consumer = Consumer::builder("bench")
        .pool(pool.connect(database.url()).await?)
        .handler("*", handler)
        .limits(limits)
        .build()?;
    let subject = format!("{stream}.{{partition/{PARTITIONS}}}");
    let config = NatsConfig::new([world.nats_url()]);
    let member = SubscriberConfig::new("bench", [subject]);
    let member = NatsSubscriber::join(&config, member).await?;
    running.spawn(consumer.run(member, stop.clone()));
    Ok(())
}

/// Publishes messages with these numbers, with the headers that a relay gives them, and waits until they are stored.
async fn publish(
    session: &mut NatsPublisher,
    routes: &Routes,
    numbers: std::ops::Range<u64>,
) -> Outcome {
    let mut batch = Batch::default();
    for n in numbers {
        let key = Key::try_from(format!("k{}", n % KEYS).as_str())?;
        let route = routes.of_key(&key);
        let draft = Message::bytes(TOPIC, payload()).key(key.as_str());
        let mut message = draft.finish(MAX_PAYLOAD)?.message;
        message.source = Some(Source::try_from("/bench")?);
        message.seq = Some(i64::try_from(n)? + 1);
        batch.messages.push(Outgoing {
            route,
            message,
            replay: None,
        });
    }
    let receipts = session.offer(Arc::new(batch)).await.await;
    if !receipts.all_confirmed() {
        return Err("a message was not confirmed".into());
    }
    Ok(())
}
