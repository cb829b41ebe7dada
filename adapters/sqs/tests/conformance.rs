//! SQS passes the suite that every adapter passes, on FIFO queues and on standard ones.

#![expect(clippy::unwrap_used, reason = "a harness fails its test by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use onceward_conformance::{Control, Harness, Member, Offer, Record, Sharing};
use onceward_core::{Order, Route, SubscribeError};
use onceward_sqs::{Sqs, SqsConfig, SqsPublisher, SqsSubscriber, SubscriberConfig};
use onceward_testkit::sqs::{self, Gate, Stored};
use onceward_testkit::unique;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

/// Queues of a server, which sessions and members reach through a gate and the harness itself does not.
struct OnSqs<const FIFO: bool> {
    server: Server,
    gate: Gate,
    /// What was taken out of each queue to look at it.
    drained: Mutex<BTreeMap<Route, Vec<Record>>>,
    /// Groups that read a standard queue in place of the one that they are told.
    misled: Mutex<BTreeSet<String>>,
    /// A member has read: deliveries may be in flight.
    read: AtomicBool,
}

enum Server {
    Shared(&'static sqs::Sqs),
    Own(Box<sqs::Sqs>),
}

impl<const FIFO: bool> OnSqs<FIFO> {
    fn sqs(&self) -> &sqs::Sqs {
        match &self.server {
            Server::Shared(sqs) => sqs,
            Server::Own(sqs) => sqs,
        }
    }

    /// SQS as a whole does not crash: what is seen of an outage is that it is out of reach. ElasticMQ keeps what it has
    /// confirmed over a crash, but no longer the order of groups of which deliveries are in flight (tried with plain HTTP).
    fn may_crash(&self) -> bool {
        !self.read.load(Ordering::SeqCst)
    }

    fn config(&self) -> SqsConfig {
        let mut config = SqsConfig::emulator(self.gate.url());
        config.order = if FIFO { Order::PerKey } else { Order::None };
        config
    }

    /// Sends past every client library.
    async fn put(&self, route: &Route, record: &Record) {
        let attributes = record.headers.iter().map(|(name, value)| {
            let value = match std::str::from_utf8(value) {
                Ok(text) => json!({ "DataType": "String", "StringValue": text }),
                Err(_) => json!({ "DataType": "Binary", "BinaryValue": STANDARD.encode(value) }),
            };
            (name.clone(), value)
        });
        let attributes: Map<String, Value> = attributes.collect();
        let mut message = json!({
            "QueueUrl": self.sqs().queue_url(route.as_str()).await,
            "MessageBody": String::from_utf8(record.payload.to_vec()).unwrap(),
            "MessageAttributes": attributes,
        });
        if FIFO {
            message["MessageGroupId"] = "foreign".into();
            message["MessageDeduplicationId"] = unique("put").into();
        }
        self.sqs().call("SendMessage", message).await;
    }
}

/// A message as it was sent, of one that lies in a queue: read by the form that the documentation tells.
fn record(stored: Stored) -> Record {
    let mut headers = Vec::new();
    let mut encoded = false;
    for (name, value) in stored.attributes {
        match name.as_str() {
            "onceward-encoding" => encoded = true,
            "onceward-headers" => {
                let many: BTreeMap<String, String> = serde_json::from_str(&value).unwrap();
                headers.extend(many.into_iter().map(|(name, value)| (name, value.into())));
            }
            _ => headers.push((name, Bytes::from(value))),
        }
    }
    let payload = match encoded {
        true => STANDARD.decode(stored.body.trim()).unwrap().into(),
        false => stored.body.into(),
    };
    Record {
        key: None,
        headers,
        payload,
    }
}

impl<const FIFO: bool> Harness for OnSqs<FIFO> {
    type Publisher = SqsPublisher;
    type Subscriber = SqsSubscriber;

    async fn start(sharing: Sharing) -> Self {
        let server = match sharing {
            Sharing::Shared => Server::Shared(sqs::Sqs::shared().await),
            Sharing::Own => Server::Own(Box::new(sqs::Sqs::start_with_storage().await)),
        };
        let port = match &server {
            Server::Shared(sqs) => sqs.port(),
            Server::Own(sqs) => sqs.port(),
        };
        Self {
            server,
            gate: Gate::to(port).await,
            drained: Mutex::default(),
            misled: Mutex::default(),
            read: AtomicBool::new(false),
        }
    }

    async fn route(&self, _partitions: u16) -> Route {
        let suffix = if FIFO { ".fifo" } else { "" };
        let name = format!("{}{suffix}", unique("route"));
        self.sqs().create_queue(&name, &[]).await;
        Route::new(&name)
    }

    async fn publisher(&self, deadline: Duration) -> SqsPublisher {
        let mut config = self.config();
        config.deadline = deadline;
        Sqs::new(config).publisher().await.unwrap()
    }

    async fn subscriber(&self, member: &Member) -> Result<SqsSubscriber, SubscribeError> {
        self.read.store(true, Ordering::SeqCst);
        let misled = self.misled.lock().await.contains(&member.group);
        let queues = member.routes.iter().map(Route::as_str);
        let mut config = SubscriberConfig::new(queues.map(|name| match misled {
            true => name.trim_end_matches(".fifo"),
            false => name,
        }));
        config.visibility = member.hold;
        config.wait = Duration::from_secs(1);
        Sqs::new(self.config()).subscriber(config).await
    }

    async fn stored(&self, route: &Route) -> Vec<Record> {
        let drained = self.sqs().drain(route.as_str()).await;
        let mut all = self.drained.lock().await;
        let of_route = all.entry(route.clone()).or_default();
        of_route.extend(drained.into_iter().map(record));
        of_route.clone()
    }

    async fn control(&self, control: Control<'_>) -> Offer {
        match (control, &self.server) {
            (Control::Stop, Server::Own(sqs)) => {
                self.gate.cut(true);
                if self.may_crash() {
                    sqs.kill();
                }
            }
            (Control::Start, Server::Own(sqs)) => {
                if self.may_crash() {
                    sqs.start_again().await;
                }
                self.gate.cut(false);
            }
            (Control::Withhold(withheld), _) => self.gate.withhold(withheld),
            (Control::Limit { route, bytes }, _) => self.gate.limit(route.as_str(), bytes.into()),
            (Control::Full { route, full }, _) => self.gate.throttle(route.as_str(), full),
            (Control::Put { route, record }, _) => self.put(route, record).await,
            (Control::Misconfigure(member), _) if FIFO => {
                for route in &member.routes {
                    let standard = route.as_str().trim_end_matches(".fifo");
                    self.sqs().create_queue(standard, &[]).await;
                }
                self.misled.lock().await.insert(member.group.clone());
            }
            // A queue keeps no positions, and one that promises no order cannot break it.
            (Control::Forget { .. } | Control::Misconfigure(_), _)
            | (Control::Stop | Control::Start, Server::Shared(_)) => return Offer::NotOffered,
        }
        Offer::Done
    }
}

mod fifo {
    onceward_conformance::suite!(super::OnSqs<true>);
}

mod standard {
    onceward_conformance::suite!(super::OnSqs<false>);
}
