//! W4: SQS by way of ElasticMQ. Sending, and receiving with each message handled once, beside the bare SDK on the same server.
//!
//! The bare client does what a careful user writes by hand: calls of ten messages of ten groups, the CloudEvents attributes, as
//! many calls at a time as the adapter makes, and a look at each entry's outcome.

mod bare;

use std::sync::Arc;
use std::time::Duration;

use onceward_consumer::CancellationToken;
use onceward_sqs::{Sqs, SqsConfig, SubscriberConfig};
use onceward_testkit::sqs::Sqs as Server;
use onceward_testkit::unique;
use tokio::task::JoinSet;

use crate::consume::lot::{Copies, batches, offer};
use crate::consume::tally::{Count, Handled, Tally};
use crate::consume::{self, DEADLINE, Manner, Transactions, pool};
use crate::cost::{Meter, Stage};
use crate::outcome::Outcome;
use crate::results::{OURS, Results};
use crate::world::World;

/// Messages of one run: the emulator is slow.
const MESSAGES: u64 = 3_000;
/// Calls at a time, as the adapter makes them.
const CALLS: usize = 32;
/// Polls at a time, as the adapter makes them.
const POLLS: usize = 2;

/// What is sent, by the clients alone.
const SENDING: &str = "sqs-send";

pub(crate) async fn measure(
    world: &World,
    transactions: &Transactions,
    results: &mut Results,
) -> Outcome {
    let mut without = Vec::new();
    for copies in Copies::BOTH {
        let received = receive_bare(world, copies, results).await?;
        consume::add_ceilings(results, "sqs", copies, (&received, transactions));
        let mut rates = [0.0; 2];
        for (manner, rate) in Manner::ALL.into_iter().zip(&mut rates) {
            let fresh = Fresh::start(world).await;
            let sent = fresh.send(copies).await?;
            if copies == Copies::None {
                Handled::by_client(sent).add_to(results, SENDING, OURS);
            }
            let handled = fresh.handle(world, manner).await?;
            handled.add_to(results, &manner.variant("sqs", copies), OURS);
            *rate = handled.rate;
        }
        consume::add_without(results, "sqs", (copies, &mut without), rates);
    }
    Ok(())
}

/// The bare client receives what lies in the queue. Without copies it has sent that itself, which is a figure; copies come by the adapter.
async fn receive_bare(world: &World, copies: Copies, results: &mut Results) -> Outcome<Handled> {
    let fresh = Fresh::start(world).await;
    let client = bare::client(&fresh.server);
    match copies {
        Copies::None => {
            let sent = bare::send(&client, &fresh.url, fresh.meter).await?;
            Handled::by_client(sent).add_to(results, SENDING, "raw-client");
        }
        Copies::EveryTenth => {
            fresh.send(copies).await?;
        }
    }
    let received = bare::receive(&client, &fresh.url, fresh.meter, copies).await?;
    Ok(Handled::by_client(received).with_duplicates(copies.of(MESSAGES)))
}

/// A fresh server with a fresh queue, for each run: the emulator gets slower with all that it has ever held. In memory: with its database,
/// calls that hang for 20 s now and then would decide who is faster.
struct Fresh {
    server: Server,
    queue: String,
    url: String,
    meter: Meter,
}

impl Fresh {
    async fn start(world: &World) -> Self {
        let server = Server::start().await;
        let queue = format!("{}.fifo", unique("bench"));
        Self {
            url: server.create_queue(&queue, &[]).await,
            meter: world.meter_with(Some(server.pid())),
            server,
            queue,
        }
    }

    /// Sends all by the adapter. The rate is that of messages, without their copies.
    async fn send(&self, copies: Copies) -> Outcome<Stage> {
        let batches = batches(&self.queue, MESSAGES, copies)?;
        let mut config = SqsConfig::emulator(self.server.url());
        config.deadline = DEADLINE;
        let publisher = Sqs::new(config).publisher().await?;
        let clock = self.meter.start()?;
        offer(publisher, batches).await?;
        clock.stop(MESSAGES)
    }

    async fn handle(&self, world: &World, manner: Manner) -> Outcome<Handled> {
        let database = world.database().await?;
        let tally = Tally::of(MESSAGES, self.meter);
        let consumer = manner.consumer(pool(&database).await?, Count(Arc::clone(&tally)))?;
        let mut reads = SubscriberConfig::new([self.queue.as_str()]);
        reads.receivers = POLLS;
        reads.wait = Duration::from_secs(1);
        let member = Sqs::new(SqsConfig::emulator(self.server.url()))
            .subscriber(reads)
            .await?;
        let stop = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(consumer.run(member, stop.clone()));
        tally.watch(database.pool(), &stop, running).await
    }
}
