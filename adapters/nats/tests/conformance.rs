//! NATS passes the suite that every adapter passes.

#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Stream};
use async_nats::jetstream::{self, consumer::pull};
use bytes::Bytes;
use onceward_conformance::{Control, Harness, Member, Offer, Record, Sharing};
use onceward_core::{
    Batch, Capabilities, Outgoing, Publisher, Route, RouteTemplate, Routes, SubscribeError,
    TopicReport,
};
use onceward_nats::{NatsConfig, NatsPending, NatsPublisher, NatsSubscriber, SubscriberConfig};
use onceward_testkit::nats::{Nats, Options};
use onceward_testkit::proxy::Proxy;
use onceward_testkit::{unique, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream of its own on a server, whose subjects are the routes.
struct OnNats {
    server: Server,
    stream: String,
    /// Locked while a setting of the stream is changed.
    settings: Mutex<Config>,
}

enum Server {
    Shared(&'static Nats),
    /// Sessions and members go through the proxy, the harness itself does not.
    Own {
        nats: Box<Nats>,
        proxy: Mutex<Proxy>,
    },
}

impl OnNats {
    fn nats(&self) -> &Nats {
        match &self.server {
            Server::Shared(nats) => nats,
            Server::Own { nats, .. } => nats,
        }
    }

    async fn config(&self) -> NatsConfig {
        let url = match &self.server {
            Server::Shared(nats) => nats.url().to_owned(),
            Server::Own { proxy, .. } => format!("nats://{}", proxy.lock().await.addr()),
        };
        NatsConfig::new([url])
    }

    async fn join(
        &self,
        member: &Member,
        subjects: Vec<String>,
    ) -> Result<NatsSubscriber, SubscribeError> {
        let mut config = SubscriberConfig::new(&member.group, subjects);
        config.ack_wait = member.hold;
        config.takeover_after = member.hold;
        NatsSubscriber::join(&self.config().await, config).await
    }

    async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.nats().client().await)
    }

    async fn stream(&self) -> Stream {
        let jetstream = self.jetstream().await;
        // A server that has just been started finds its streams in a moment.
        wait::until(PATIENCE, "the stream", || async {
            jetstream.get_stream(&self.stream).await.ok()
        })
        .await
    }

    /// Changes the stream's settings.
    async fn set(&self, change: impl FnOnce(&mut Config)) {
        let mut settings = self.settings.lock().await;
        change(&mut settings);
        let jetstream = self.jetstream().await;
        jetstream
            .create_or_update_stream(settings.clone())
            .await
            .unwrap();
    }

    /// Publishes past every client library, as those refuse bytes that are no text.
    async fn put(&self, route: &Route, record: &Record) {
        let before = self.stream().await.cached_info().state.messages;
        let mut header = b"NATS/1.0\r\n".to_vec();
        for (name, value) in &record.headers {
            header.extend_from_slice(name.as_bytes());
            header.extend_from_slice(b": ");
            header.extend_from_slice(value);
            header.extend_from_slice(b"\r\n");
        }
        header.extend_from_slice(b"\r\n");
        let total = header.len() + record.payload.len();
        let mut bytes = b"CONNECT {\"verbose\":false,\"headers\":true}\r\n".to_vec();
        bytes.extend_from_slice(format!("HPUB {route} {} {total}\r\n", header.len()).as_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&record.payload);
        bytes.extend_from_slice(b"\r\nPING\r\n");
        let address = self.nats().url().trim_start_matches("nats://").to_owned();
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(&bytes).await.unwrap();
        wait::until_true(PATIENCE, "the message to be stored", || async {
            self.stream().await.cached_info().state.messages > before
        })
        .await;
        let mut said = vec![0; 4096];
        let read = socket.read(&mut said).await.unwrap();
        assert!(read > 0);
    }
}

impl Harness for OnNats {
    type Publisher = NatsPublisher;
    type Subscriber = NatsSubscriber;

    async fn start(sharing: Sharing) -> Self {
        let server = match sharing {
            Sharing::Shared => Server::Shared(Nats::shared().await),
            Sharing::Own => {
                let nats = Box::new(Nats::start(Options::default()).await);
                let proxy = Mutex::new(Proxy::to(nats.port()).await);
                Server::Own { nats, proxy }
            }
        };
        let stream = unique("conformance");
        let settings = Config {
            name: stream.clone(),
            max_messages: -1,
            max_message_size: -1,
            ..Config::default()
        };
        Self {
            server,
            stream,
            settings: Mutex::new(settings),
        }
    }

    async fn route(&self, _partitions: u16) -> Route {
        let route = unique("route");
        self.set(|settings| settings.subjects.push(route.clone()))
            .await;
        Route::new(&route)
    }

    async fn publisher(&self, deadline: Duration) -> NatsPublisher {
        let mut config = self.config().await;
        config.deadline = deadline;
        // A server that has just been started listens in a moment.
        wait::until(PATIENCE, "a session", || async {
            NatsPublisher::connect(&config).await.ok()
        })
        .await
    }

    async fn subscriber(&self, member: &Member) -> Result<NatsSubscriber, SubscribeError> {
        let subjects = member.routes.iter().map(Route::as_str);
        self.join(member, subjects.map(str::to_owned).collect())
            .await
    }

    async fn stored(&self, route: &Route) -> Vec<Record> {
        let stream = self.stream().await;
        let mut records = Vec::new();
        let mut next = 1;
        while let Ok(message) = stream
            .get_first_raw_message_by_subject(route.as_str(), next)
            .await
        {
            next = message.sequence + 1;
            records.push(Record {
                key: None,
                headers: headers(&message.headers),
                payload: message.payload,
            });
        }
        records
    }

    async fn control(&self, control: Control<'_>) -> Offer {
        match (control, &self.server) {
            (Control::Stop, Server::Own { nats, .. }) => nats.kill(),
            (Control::Start, Server::Own { nats, .. }) => nats.start_again().await,
            (Control::Withhold(true), Server::Own { proxy, .. }) => {
                proxy.lock().await.swallow_answers();
            }
            (Control::Withhold(false), Server::Own { proxy, .. }) => {
                proxy.lock().await.heal().await
            }
            (Control::Limit { bytes, .. }, _) => {
                let bytes = i32::try_from(bytes).unwrap();
                self.set(|settings| settings.max_message_size = bytes).await;
            }
            (Control::Full { full, .. }, _) => {
                let state = self.stream().await.cached_info().state.clone();
                let stored = i64::try_from(state.messages).unwrap();
                self.set(|settings| {
                    settings.discard = DiscardPolicy::New;
                    settings.max_messages = if full { stored.max(1) } else { -1 };
                })
                .await;
            }
            (Control::Forget { keep, .. }, _) => {
                let keep = i64::try_from(keep).unwrap();
                self.set(|settings| {
                    settings.discard = DiscardPolicy::Old;
                    settings.max_messages = keep;
                })
                .await;
                self.set(|settings| settings.max_messages = -1).await;
            }
            (Control::Put { route, record }, _) => self.put(route, record).await,
            (Control::Misconfigure(member), _) => {
                let durable = pull::Config {
                    durable_name: Some(member.group.clone()),
                    filter_subjects: member.routes.iter().map(ToString::to_string).collect(),
                    max_deliver: 3,
                    ..pull::Config::default()
                };
                let stream = self.stream().await;
                stream.create_consumer(durable).await.unwrap();
            }
            (Control::Stop | Control::Start | Control::Withhold(_), Server::Shared(_)) => {
                return Offer::NotOffered;
            }
        }
        Offer::Done
    }
}

fn headers(map: &HeaderMap) -> Vec<(String, Bytes)> {
    let one = |name: &str, value: &str| (name.to_owned(), Bytes::from(value.to_owned()));
    map.iter()
        .flat_map(|(name, values)| {
            values
                .iter()
                .map(|value| one(name.as_ref(), value.as_str()))
        })
        .collect()
}

onceward_conformance::suite!(OnNats);

/// The same with routes that are spread over partitions, as a relay with `{partition/3}` in its route publishes to them.
struct OnPartitions(OnNats);

const PARTITIONS: u32 = 3;

fn spread(route: &Route, partition: &str) -> Route {
    Route::new(&format!("{route}.{partition}"))
}

/// Puts the partition of the key behind the route.
struct Spreading(NatsPublisher);

fn routes(outgoing: &Outgoing) -> Routes {
    let template = format!("{}.{{partition/{PARTITIONS}}}", outgoing.route);
    let template = RouteTemplate::new(&template, BTreeMap::new()).unwrap();
    template.routes(&outgoing.message.topic)
}

impl Publisher for Spreading {
    type Pending = NatsPending;

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn offer(&mut self, batch: Arc<Batch>) -> NatsPending {
        let mut batch = Batch::clone(&batch);
        for outgoing in &mut batch.messages {
            let message = &outgoing.message;
            outgoing.route = routes(outgoing).of(message.key.as_ref(), &message.id);
        }
        self.0.offer(Arc::new(batch)).await
    }

    async fn check(&mut self, routes: &[Route]) -> Vec<TopicReport> {
        let routes: Vec<Route> = routes.iter().map(|route| spread(route, "0")).collect();
        self.0.check(&routes).await
    }

    async fn abandon(&mut self) {
        self.0.abandon().await;
    }

    async fn close(self, within: Duration) {
        self.0.close(within).await;
    }
}

impl Harness for OnPartitions {
    type Publisher = Spreading;
    type Subscriber = NatsSubscriber;

    async fn start(sharing: Sharing) -> Self {
        Self(OnNats::start(sharing).await)
    }

    async fn route(&self, _partitions: u16) -> Route {
        let route = Route::new(&unique("spread"));
        let every = spread(&route, "*").to_string();
        self.0.set(|settings| settings.subjects.push(every)).await;
        route
    }

    async fn publisher(&self, deadline: Duration) -> Spreading {
        Spreading(self.0.publisher(deadline).await)
    }

    async fn subscriber(&self, member: &Member) -> Result<NatsSubscriber, SubscribeError> {
        let token = format!("{{partition/{PARTITIONS}}}");
        let subjects = member.routes.iter();
        let subjects = subjects.map(|route| spread(route, &token).to_string());
        self.0.join(member, subjects.collect()).await
    }

    async fn stored(&self, route: &Route) -> Vec<Record> {
        self.0.stored(&spread(route, "*")).await
    }

    async fn control(&self, control: Control<'_>) -> Offer {
        match control {
            Control::Put { route, record } => {
                let route = &spread(route, "0");
                self.0.control(Control::Put { route, record }).await
            }
            Control::Misconfigure(member) => {
                let first = Member {
                    group: format!("{}-0", member.group),
                    routes: member.routes.iter().map(|r| spread(r, "0")).collect(),
                    hold: member.hold,
                };
                self.0.control(Control::Misconfigure(&first)).await
            }
            Control::Stop
            | Control::Start
            | Control::Withhold(_)
            | Control::Limit { .. }
            | Control::Full { .. }
            | Control::Forget { .. } => self.0.control(control).await,
        }
    }
}

/// The cases that read. Not among them: a jump is not told where a durable reads a part of its stream, and a partition may pass
/// to a member that comes, for which `tests/spread` has cases of its own.
mod partitioned {
    use super::OnPartitions;

    onceward_conformance::suite! { @tests OnPartitions =>
        payloads_and_attributes_come_back_unchanged
        hostile_headers_neither_panic_nor_forge
        foreign_messages_come_whole
        what_is_not_acked_comes_again
        what_is_acked_does_not_come_again
        an_ack_after_a_reconnect_loses_nothing
        a_paused_partition_goes_on_where_it_stopped
        the_backlog_counts_what_is_not_acked
        a_dangerous_setup_is_refused
        a_clean_close_with_work_in_flight_gives_it_on
        a_rebalance_among_three_members_keeps_order
    }
}
