//! Work spread over members by partitioned subjects, on a real server.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::stream::Config;
use futures_util::StreamExt as _;
use onceward_core::{
    Acker as _, Arrival, Batch, Delivery, Message, Outgoing, Partition, Publisher as _, Release,
    Route, SubscribeErrorKind, Subscriber as _,
};
use onceward_nats::{
    Credentials, NatsAcker, NatsConfig, NatsPublisher, NatsSubscriber, NatsToken, SubscriberConfig,
};
use onceward_testkit::nats::{Nats, Options};
use onceward_testkit::unique;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: u32 = 8;

/// The partition of a key, as the relay and the server's own `partition()` have it: FNV-1a of 32 bits.
fn partition(key: &str) -> u32 {
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash % PARTITIONS
}

/// A stream whose subjects end in the partition, and a session to publish to it.
struct Shop {
    config: NatsConfig,
    name: String,
    session: NatsPublisher,
    /// How many messages of each key were published.
    sent: BTreeMap<String, u32>,
}

impl Shop {
    async fn open(nats: &Nats) -> Self {
        let name = unique("shop");
        stream(&jetstream::new(nats.client().await), &name).await;
        Self::of(NatsConfig::new([nats.url()]), name).await
    }

    async fn of(config: NatsConfig, name: String) -> Self {
        Self {
            session: NatsPublisher::connect(&config).await.unwrap(),
            config,
            name,
            sent: BTreeMap::new(),
        }
    }

    /// Publishes the next message of each of so many keys.
    async fn publish(&mut self, keys: u32) {
        let messages = (0..keys).map(|key| {
            let key = format!("key-{key}");
            let next = self.sent.entry(key.clone()).or_default();
            *next += 1;
            let draft = Message::bytes("orders", next.to_string()).key(&key);
            Outgoing {
                route: Route::new(&format!("{}.orders.{}", self.name, partition(&key))),
                message: draft.finish(1_000).unwrap().message,
                replay: None,
            }
        });
        let messages = messages.collect();
        let pending = self.session.offer(Arc::new(Batch { messages })).await;
        let receipts = tokio::time::timeout(PATIENCE, pending).await.unwrap();
        assert!(receipts.all_confirmed(), "{receipts:?}");
    }

    async fn join(&self, change: impl FnOnce(&mut SubscriberConfig)) -> NatsSubscriber {
        let mut config = self.member();
        change(&mut config);
        NatsSubscriber::join(&self.config, config).await.unwrap()
    }

    fn member(&self) -> SubscriberConfig {
        let subject = format!("{}.*.{{partition/{PARTITIONS}}}", self.name);
        let mut config = SubscriberConfig::new("billing", [subject]);
        config.takeover_after = Duration::from_secs(2);
        config
    }

    /// Publishes while it waits, as a partition has an owner only once it has a message.
    async fn publish_until(&mut self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        let mut every = tokio::time::interval(Duration::from_millis(100));
        while !done() {
            assert!(Instant::now() < end, "waited in vain for {what}");
            every.tick().await;
            self.publish(30).await;
        }
    }

    /// Every message of every key, first in order.
    fn everything(&self) -> ByKey {
        let all = self.sent.iter();
        all.map(|(key, count)| (key.clone(), (1..=*count).collect()))
            .collect()
    }
}

async fn stream(jetstream: &jetstream::Context, name: &str) {
    let config = Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>")],
        ..Config::default()
    };
    jetstream.create_stream(config).await.unwrap();
}

/// The numbers of each key's messages.
type ByKey = BTreeMap<String, Vec<u32>>;

/// What is settled, as marks in a database would have it.
#[derive(Debug, Clone, Default)]
struct Marks(Arc<Mutex<Settled>>);

#[derive(Debug, Default)]
struct Settled {
    ids: HashSet<String>,
    order: ByKey,
    /// Deliveries of what was settled already.
    copies: usize,
    /// Partitions that members lost without being asked to give them back.
    lost: usize,
}

impl Marks {
    fn settle(&self, delivery: &Delivery<NatsToken>) {
        let message = delivery.message.as_ref().unwrap();
        let number = std::str::from_utf8(&message.payload).unwrap();
        let mut marks = self.0.lock().unwrap();
        if marks.ids.insert(message.id.to_string()) {
            let key = message.key.as_ref().unwrap().to_string();
            let order = marks.order.entry(key).or_default();
            order.push(number.parse().unwrap());
        } else {
            marks.copies += 1;
        }
    }

    fn order(&self) -> ByKey {
        self.0.lock().unwrap().order.clone()
    }

    async fn are(&self, expected: &ByKey) {
        let settled = || self.0.lock().unwrap().ids.len();
        let all = expected.values().map(Vec::len).sum::<usize>();
        onceward_testkit::wait::until_true(PATIENCE, "all messages", || async { settled() >= all })
            .await;
        assert_eq!(&self.order(), expected);
    }
}

/// What a worker owns, for all to see.
type Owned = watch::Receiver<BTreeSet<String>>;

/// A member at work: it holds each delivery for a while, settles it, and acks it.
struct Worker {
    reader: NatsSubscriber,
    acker: NatsAcker,
    marks: Marks,
    in_work: VecDeque<(Instant, Delivery<NatsToken>)>,
    releases: Vec<(Partition, Release)>,
    owned: watch::Sender<BTreeSet<String>>,
    /// How long each delivery is in work.
    takes: Duration,
    /// Until when it settles what comes.
    works: watch::Receiver<bool>,
}

/// A worker in a task of its own.
struct Running {
    owned: Owned,
    works: watch::Sender<bool>,
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<Worker>,
}

impl Running {
    fn owns(&self) -> usize {
        self.owned.borrow().len()
    }

    async fn stop(self) -> Worker {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

fn owns(workers: &[&Running]) -> Vec<usize> {
    let mut sizes: Vec<usize> = workers.iter().map(|worker| worker.owns()).collect();
    sizes.sort_unstable();
    sizes
}

impl Worker {
    fn start(reader: NatsSubscriber, marks: &Marks, takes: Duration) -> Running {
        let (owned, seen) = watch::channel(BTreeSet::new());
        let (works, working) = watch::channel(true);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let worker = Self {
            acker: reader.acker(),
            reader,
            marks: marks.clone(),
            in_work: VecDeque::new(),
            releases: Vec::new(),
            owned,
            takes,
            works: working,
        };
        Running {
            owned: seen,
            works,
            stop,
            task: tokio::spawn(worker.run(stopped)),
        }
    }

    async fn run(mut self, mut stop: tokio::sync::oneshot::Receiver<()>) -> Self {
        loop {
            let working = *self.works.borrow();
            let due = self.in_work.front().map(|(due, _)| *due);
            let due = due.filter(|_| working);
            tokio::select! {
                _ = &mut stop => return self,
                arrivals = self.reader.next(20) => {
                    // An outage is told and waited out by the adapter.
                    for arrival in arrivals.unwrap_or_default() {
                        self.arrived(arrival);
                    }
                }
                _ = self.works.changed() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                    self.settle_next().await;
                }
            }
            self.release_finished();
        }
    }

    fn arrived(&mut self, arrival: Arrival<NatsToken>) {
        match arrival {
            Arrival::Delivery(delivery) => {
                self.in_work
                    .push_back((Instant::now() + self.takes, delivery));
            }
            Arrival::Assigned(partition) => self.own(&partition, true),
            Arrival::Revoking {
                partition, release, ..
            } => self.releases.push((partition, release)),
            Arrival::Lost(partition) => {
                self.in_work
                    .retain(|(_, delivery)| delivery.origin.partition != partition);
                self.releases.retain(|(revoked, _)| *revoked != partition);
                self.marks.0.lock().unwrap().lost += 1;
                self.own(&partition, false);
            }
            Arrival::Jumped { .. } => panic!("nothing was removed"),
        }
    }

    async fn settle_next(&mut self) {
        if let Some((_, delivery)) = self.in_work.pop_front() {
            self.marks.settle(&delivery);
            // A lost ack is a delivery that comes again.
            self.acker.ack(vec![delivery.token]).await.ok();
        }
    }

    fn release_finished(&mut self) {
        let in_work = &self.in_work;
        let finished = |partition: &Partition| {
            let mut deliveries = in_work.iter();
            deliveries.all(|(_, delivery)| delivery.origin.partition != *partition)
        };
        let (done, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.releases)
            .into_iter()
            .partition(|(partition, _)| finished(partition));
        self.releases = rest;
        for (partition, release) in done {
            self.own(&partition, false);
            drop(release);
        }
    }

    fn own(&self, partition: &Partition, owns: bool) {
        let name = partition.to_string();
        self.owned.send_modify(|owned| {
            if owns {
                owned.insert(name);
            } else {
                owned.remove(&name);
            }
        });
    }
}

const NO_TIME: Duration = Duration::ZERO;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_evenly_as_they_come() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    // Longer than from one message to the next: something is always in work.
    let takes = Duration::from_millis(150);
    // Nothing moves because somebody is waited for in vain.
    let patient = |config: &mut SubscriberConfig| config.takeover_after = Duration::from_secs(600);

    let first = Worker::start(shop.join(patient).await, &marks, takes);
    shop.publish_until("all of one", || owns(&[&first]) == [8])
        .await;
    let second = Worker::start(shop.join(patient).await, &marks, takes);
    shop.publish_until("4 : 4", || owns(&[&first, &second]) == [4, 4])
        .await;
    let third = Worker::start(shop.join(patient).await, &marks, takes);
    shop.publish_until("2 : 3 : 3", || {
        owns(&[&first, &second, &third]) == [2, 3, 3]
    })
    .await;
    let fourth = Worker::start(shop.join(patient).await, &marks, takes);
    let all = [&first, &second, &third, &fourth];
    shop.publish_until("2 : 2 : 2 : 2", || owns(&all) == [2, 2, 2, 2])
        .await;

    marks.are(&shop.everything()).await;
    let mut owned = BTreeSet::new();
    for worker in all {
        owned.extend(worker.owned.borrow().clone());
    }
    let names = (0..8).map(|number| format!("{}/billing-{number}", shop.name));
    assert_eq!(owned, names.collect());
    // What moves is asked for, finished and acked, so that it moves without copies.
    let marks = marks.0.lock().unwrap();
    assert_eq!((marks.lost, marks.copies), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_that_vanishes_had_in_work_is_taken_over_in_order() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    // Nothing comes again by itself within this test.
    let long_wait = |config: &mut SubscriberConfig| config.ack_wait = Duration::from_secs(600);
    let first = Worker::start(shop.join(long_wait).await, &marks, NO_TIME);
    let second = Worker::start(shop.join(long_wait).await, &marks, NO_TIME);
    shop.publish_until("4 : 4", || owns(&[&first, &second]) == [4, 4])
        .await;
    marks.are(&shop.everything()).await;

    first.works.send_replace(false);
    for _ in 0..10 {
        shop.publish(30).await;
    }
    let vanished = first.stop().await;
    drop(vanished);
    // No new message helps.
    marks.are(&shop.everything()).await;

    assert_eq!(second.owns(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_closes_hands_over_at_once() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    let patient = |config: &mut SubscriberConfig| {
        config.takeover_after = Duration::from_secs(50);
        config.ack_wait = Duration::from_secs(600);
    };
    let first = Worker::start(shop.join(patient).await, &marks, NO_TIME);
    let second = Worker::start(shop.join(patient).await, &marks, NO_TIME);
    shop.publish_until("4 : 4", || owns(&[&first, &second]) == [4, 4])
        .await;

    first.works.send_replace(false);
    for _ in 0..10 {
        shop.publish(30).await;
    }
    let leaving = first.stop().await;
    let members = format!("_ONCEWARD.members.{}.billing", shop.name);
    let client = nats.client().await;
    let mut beats = client.subscribe(members).await.unwrap();
    // Once one is here, the server knows that we listen.
    let listening = tokio::time::timeout(PATIENCE, beats.next()).await;
    assert!(listening.unwrap().is_some());
    let begin = Instant::now();
    leaving.reader.close(Duration::from_secs(20)).await;
    marks.are(&shop.everything()).await;

    let took = begin.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(second.owns(), 8);
    let goodbye = async {
        while let Some(beat) = beats.next().await {
            if std::str::from_utf8(&beat.payload)
                .unwrap()
                .contains("\"leaving\":true")
            {
                return true;
            }
        }
        false
    };
    let said = tokio::time::timeout(PATIENCE, goodbye).await;
    assert!(said.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handing_over_with_work_in_flight_loses_nothing_and_keeps_the_order_of_each_key() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    let takes = Duration::from_millis(30);
    // It begins again for whatever is not acked in time.
    let hurried = |config: &mut SubscriberConfig| config.buffer = 40;

    let first = Worker::start(shop.join(hurried).await, &marks, takes);
    shop.publish_until("all of one", || owns(&[&first]) == [8])
        .await;
    let second = Worker::start(shop.join(hurried).await, &marks, takes);
    shop.publish_until("4 : 4", || owns(&[&first, &second]) == [4, 4])
        .await;
    let third = Worker::start(shop.join(hurried).await, &marks, takes);
    shop.publish_until("2 : 3 : 3", || {
        owns(&[&first, &second, &third]) == [2, 3, 3]
    })
    .await;
    // One leaves in good order with work in flight, and then another one vanishes.
    let leaving = second.stop().await;
    leaving.reader.close(Duration::from_secs(20)).await;
    shop.publish_until("4 : 4", || owns(&[&first, &third]) == [4, 4])
        .await;
    drop(first.stop().await);
    shop.publish_until("all of one", || owns(&[&third]) == [8])
        .await;

    marks.are(&shop.everything()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_released_in_time_is_lost_and_goes_on_elsewhere() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    let short = |config: &mut SubscriberConfig| {
        config.revoke_within = Duration::from_millis(500);
        config.ack_wait = Duration::from_secs(600);
    };
    let first = Worker::start(shop.join(short).await, &marks, NO_TIME);
    shop.publish_until("all of one", || owns(&[&first]) == [8])
        .await;
    marks.are(&shop.everything()).await;

    first.works.send_replace(false);
    shop.publish(30).await;
    let second = Worker::start(shop.join(short).await, &marks, NO_TIME);
    let both = [&first, &second];
    shop.publish_until("4 : 4", || owns(&both) == [4, 4]).await;
    first.works.send_replace(true);

    marks.are(&shop.everything()).await;
    assert!(marks.0.lock().unwrap().lost > 0);
}

/// Reads until `enough` of what came, in deliveries by partition.
async fn read_until(
    reader: &mut NatsSubscriber,
    came: &mut BTreeMap<Partition, usize>,
    enough: impl Fn(&BTreeMap<Partition, usize>) -> bool,
) {
    let acker = reader.acker();
    let reading = async {
        while !enough(came) {
            for arrival in reader.next(10).await.unwrap() {
                if let Arrival::Delivery(delivery) = arrival {
                    *came.entry(delivery.origin.partition).or_default() += 1;
                    acker.ack(vec![delivery.token]).await.unwrap();
                }
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    assert!(read.is_ok(), "only {came:?} came");
}

#[tokio::test]
async fn a_paused_partition_does_not_stop_the_others() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let mut reader = shop.join(|config| config.buffer = 16).await;
    let mut came = BTreeMap::new();
    let all = |came: &BTreeMap<_, usize>| came.values().sum::<usize>();
    shop.publish(30).await;
    read_until(&mut reader, &mut came, |came| all(came) == 30).await;
    let of_3 = partition("key-3");
    let paused = Partition::new(&format!("{}/billing-{of_3}", shop.name));
    let before = came[&paused];

    reader.pause(&paused, true);
    for _ in 0..20 {
        shop.publish(30).await;
    }
    let others = 21 * (30 - before);
    read_until(&mut reader, &mut came, |came| all(came) - before == others).await;
    let backlog = reader.backlog().await.unwrap();

    assert_eq!(came[&paused], before);
    assert_eq!(backlog.len(), 8);
    let of_paused = backlog.iter().find(|one| one.partition == paused).unwrap();
    assert_eq!(of_paused.count, 20 * before as u64);
    assert!(of_paused.oldest.is_some());
    reader.pause(&paused, false);
    read_until(&mut reader, &mut came, |came| came[&paused] == 21 * before).await;
}

#[tokio::test]
async fn partitions_that_are_none_are_refused() {
    let nats = Nats::shared().await;
    let shop = Shop::open(nats).await;
    let name = &shop.name;
    for (subjects, words) in [
        (vec![format!("{name}.{{partition/0}}")], "from 1 to 256"),
        (
            vec![
                format!("{name}.a.{{partition/8}}"),
                format!("{name}.b.{{partition/4}}"),
            ],
            "same number of partitions",
        ),
        (vec![format!("{name}.p{{partition/8}}")], "whole token"),
    ] {
        let config = SubscriberConfig::new("billing", subjects.clone());

        let error = NatsSubscriber::join(&shop.config, config)
            .await
            .unwrap_err();

        assert_eq!(error.kind, SubscribeErrorKind::Misconfigured);
        assert!(error.what.contains(words), "{subjects:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_durable_of_a_partition_that_reads_other_subjects_is_refused() {
    let nats = Nats::shared().await;
    let shop = Shop::open(nats).await;
    let subject = format!("{}.orders.5", shop.name);
    let plain = SubscriberConfig::new("billing-5", [subject]);
    let other = NatsSubscriber::join(&shop.config, plain).await.unwrap();
    other.close(Duration::from_secs(5)).await;

    let error = NatsSubscriber::join(&shop.config, shop.member())
        .await
        .unwrap_err();

    assert_eq!(error.kind, SubscribeErrorKind::Misconfigured);
    assert!(error.what.contains("billing-5"), "{error:?}");
}

/// The rights that the adapter's documentation asks for a partitioned consumer; `mute` has them without those to be heard.
const RIGHTS: &str = r#"
accounts {
  A {
    jetstream: enabled
    users: [
      { user: admin, password: secret }
      { user: heard, password: secret, permissions: {
        publish: [
          "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.SHOP", "$JS.API.STREAM.MSG.GET.SHOP"
          "$JS.API.CONSUMER.INFO.SHOP.*", "$JS.API.CONSUMER.CREATE.SHOP.>"
          "$JS.API.CONSUMER.RESET.SHOP.*", "$JS.API.CONSUMER.UNPIN.SHOP.*"
          "$JS.API.CONSUMER.MSG.NEXT.SHOP.*", "$JS.ACK.SHOP.>"
          "_ONCEWARD.members.SHOP.billing" ]
        subscribe: [ "_INBOX.>", "_ONCEWARD.members.SHOP.billing" ] } }
      { user: mute, password: secret, permissions: {
        publish: [ "$JS.API.>", "$JS.ACK.>" ]
        subscribe: "_INBOX.>" } }
    ]
  }
}
"#;

async fn shop_with_rights() -> (Nats, Shop) {
    let nats = Nats::start(Options {
        config: RIGHTS.to_owned(),
        ..Options::default()
    })
    .await;
    let admin = as_user(&nats, "admin");
    let user =
        async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), "secret".to_owned());
    let client = user.connect(nats.url()).await.unwrap();
    stream(&jetstream::new(client), "SHOP").await;
    let shop = Shop::of(admin, "SHOP".to_owned()).await;
    (nats, shop)
}

fn as_user(nats: &Nats, user: &str) -> NatsConfig {
    let mut config = NatsConfig::new([nats.url()]);
    config.credentials = Credentials::UserPassword {
        user: user.to_owned(),
        password: "secret".into(),
    };
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_are_documented_are_enough_to_spread() {
    let (nats, mut shop) = shop_with_rights().await;
    let marks = Marks::default();
    let heard = as_user(&nats, "heard");

    let mut workers = Vec::new();
    for _ in 0..2 {
        let reader = NatsSubscriber::join(&heard, shop.member()).await.unwrap();
        workers.push(Worker::start(reader, &marks, NO_TIME));
    }
    let both = [&workers[0], &workers[1]];
    shop.publish_until("4 : 4", || owns(&both) == [4, 4]).await;

    marks.are(&shop.everything()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_may_not_hear_each_other_are_as_safe_and_read_everything() {
    let (nats, mut shop) = shop_with_rights().await;
    let marks = Marks::default();
    let mute = as_user(&nats, "mute");

    let mut workers = Vec::new();
    for _ in 0..2 {
        let reader = NatsSubscriber::join(&mute, shop.member()).await.unwrap();
        workers.push(Worker::start(reader, &marks, NO_TIME));
    }
    let both = [&workers[0], &workers[1]];
    let all = || owns(&both).iter().sum::<usize>() == 8;
    shop.publish_until("an owner for each", all).await;
    marks.are(&shop.everything()).await;
    let left = workers.remove(0).stop().await;
    left.reader.close(Duration::from_secs(20)).await;
    shop.publish_until("all of one", || workers[0].owns() == 8)
        .await;

    marks.are(&shop.everything()).await;
}
