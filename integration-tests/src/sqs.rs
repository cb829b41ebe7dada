//! SQS, played by ElasticMQ: a shared server, servers of a test's own to kill and to start again, and a [`Gate`] in front
//! of one that refuses, withholds and records.

mod call;
mod gate;
mod record;
mod server;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::elsewhere;
pub use call::CallError;
pub use gate::{Act, Call, Failure, Gate, Recording};
pub use record::Stored;
use server::{Server, Storage};

/// A running server that speaks SQS, on loopback, which takes any credentials. Ends when it is dropped.
#[derive(Debug)]
pub struct Sqs {
    /// None: it runs elsewhere and is not ours to stop.
    server: Option<Server>,
    url: String,
}

impl Sqs {
    /// The server that all tests of this process share: the one of `ONCEWARD_TEST_SQS_URL`, else one that is started now.
    ///
    /// # Panics
    /// When there is none and none can be started.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Sqs> = OnceCell::const_new();

        SHARED
            .get_or_init(|| async {
                match elsewhere::sqs() {
                    Some(url) => Self { server: None, url },
                    None => Self::start().await,
                }
            })
            .await
    }

    /// Starts a server of one's own, in some two seconds. It keeps everything in memory: what is killed or stopped stays so.
    ///
    /// # Panics
    /// When ElasticMQ is not on this machine or does not start.
    pub async fn start() -> Self {
        Self::start_on(Storage::Memory).await
    }

    /// As [`start`](Self::start), with queues and messages in a database: for tests that kill the server and
    /// [start it again](Self::start_again). Now and then such a server does not answer a call for some 20 seconds, which is a
    /// fault of ElasticMQ's; so whoever does not start it again uses [`start`](Self::start).
    ///
    /// # Panics
    /// When ElasticMQ is not on this machine or does not start.
    pub async fn start_with_storage() -> Self {
        Self::start_on(Storage::Database).await
    }

    async fn start_on(storage: Storage) -> Self {
        let server = Server::start(storage).await;
        Self {
            url: format!("http://127.0.0.1:{}", server.port()),
            server: Some(server),
        }
    }

    /// Its URL: what clients are given as endpoint.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port, for a proxy or a gate in front of it.
    ///
    /// # Panics
    /// When the URL in the environment has none.
    #[must_use]
    pub fn port(&self) -> u16 {
        let digits = self.url.trim_end_matches('/').rsplit(':').next();
        digits
            .and_then(|digits| digits.parse().ok())
            .expect("the URL of the server ends with its port")
    }

    /// Makes a queue, such as `("orders.fifo", &[("VisibilityTimeout", "5")])`, and gives its URL. A name that ends in `.fifo`
    /// makes a FIFO queue. From then on the queue survives a crash, where the server has [storage](Self::start_with_storage).
    ///
    /// # Panics
    /// When the server refuses it.
    pub async fn create_queue(&self, name: &str, attributes: &[(&str, &str)]) -> String {
        let mut all: serde_json::Map<String, Value> = attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
            .collect();
        if name.ends_with(".fifo") {
            all.insert("FifoQueue".to_owned(), "true".into());
        }
        let body = json!({ "QueueName": name, "Attributes": all });
        let answer = self.call("CreateQueue", body).await;
        let url = answer["QueueUrl"].as_str().unwrap_or_default().to_owned();
        let stored = |server: &Server| server.storage() == Storage::Database;
        if self.server.as_ref().is_some_and(stored) {
            self.keep(name, &url).await;
        }
        url
    }

    /// ElasticMQ stores a queue in its own time, but before the first message that it confirms.
    async fn keep(&self, name: &str, url: &str) {
        let mut message = json!({ "QueueUrl": url, "MessageBody": "first" });
        if name.ends_with(".fifo") {
            message["MessageGroupId"] = "first".into();
            message["MessageDeduplicationId"] = "first".into();
        }
        self.call("SendMessage", message).await;
        self.drain(name).await;
    }

    /// The URL of a queue.
    ///
    /// # Panics
    /// When there is none of that name.
    pub async fn queue_url(&self, name: &str) -> String {
        let answer = self.call("GetQueueUrl", json!({ "QueueName": name })).await;
        answer["QueueUrl"].as_str().unwrap_or_default().to_owned()
    }

    /// Calls an action of the API with plain HTTP, no client library between.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn call(&self, action: &str, body: Value) -> Value {
        let answer = self.try_call(action, body).await;
        answer.unwrap_or_else(|error| panic!("{action}: {error}"))
    }

    /// As [`call`](Self::call).
    ///
    /// # Errors
    /// [`CallError`] when the server does not answer or refuses.
    pub async fn try_call(&self, action: &str, body: Value) -> Result<Value, CallError> {
        call::call(&self.url, action, &body).await
    }

    /// Takes all messages out of a queue, for good: a queue cannot be read without consuming it. In the order in which the
    /// queue gives them out, which of a FIFO queue is the order of each group.
    ///
    /// # Panics
    /// When the server refuses, or messages are invisible for longer than a minute.
    pub async fn drain(&self, name: &str) -> Vec<Stored> {
        record::drain(self, name).await
    }

    /// The id of its process.
    ///
    /// # Panics
    /// When the server is not ours. So do all below.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.own().pid()
    }

    /// SIGKILL, as a crash.
    ///
    /// # Panics
    /// When the server is not ours.
    pub fn kill(&self) {
        self.own().kill();
    }

    /// Ends it in good order.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&self) {
        self.own().stop().await;
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop): same port, same queues and messages.
    ///
    /// # Panics
    /// When it does not start, or has no [storage](Self::start_with_storage).
    pub async fn start_again(&self) {
        self.own().start_again().await;
    }

    /// SIGSTOP: connections stay open and nothing answers. [`cont`](Self::cont) ends it.
    pub fn freeze(&self) {
        self.own().freeze(true);
    }

    /// Lets a frozen server go on.
    pub fn cont(&self) {
        self.own().freeze(false);
    }

    fn own(&self) -> &Server {
        self.server
            .as_ref()
            .expect("ONCEWARD_TEST_SQS_URL names a server that is not the test's to stop")
    }
}

#[cfg(test)]
mod tests;
