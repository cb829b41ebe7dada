//! NATS with JetStream: a shared server, and servers of a test's own to kill and to start again.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::process::Child;
use crate::{Scratch, binaries, elsewhere, free_port, wait};

const START_TAKES_AT_MOST: Duration = Duration::from_secs(20);
const STOP_TAKES_AT_MOST: Duration = Duration::from_secs(20);
const ANSWER_TAKES_AT_MOST: Duration = Duration::from_secs(1);

/// Settings of a server of the test's own.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The largest message that the server takes, in bytes; the server's default is 1 MiB.
    pub max_payload: Option<u32>,
    /// More lines for the server's configuration file, in its own syntax.
    pub config: String,
    /// The port that clients are told to use, when they come through a proxy.
    pub advertised_port: Option<u16>,
}

/// A running NATS server with JetStream, without authentication, on loopback. Ends when it is dropped.
#[derive(Debug)]
pub struct Nats {
    /// None: it runs elsewhere and is not ours to stop.
    server: Option<Server>,
    url: String,
}

#[derive(Debug)]
struct Server {
    // Dropped in this order: first the process, then its files.
    child: Mutex<Option<Child>>,
    program: PathBuf,
    port: u16,
    monitor: u16,
    scratch: Scratch,
}

impl Nats {
    /// The server that all tests of this process share: the one of `ONCEWARD_TEST_NATS_URL` (with JetStream), else
    /// one that is started now.
    ///
    /// # Panics
    /// When there is none and none can be started.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Nats> = OnceCell::const_new();

        SHARED
            .get_or_init(|| async {
                match elsewhere::nats().await {
                    Some(url) => Self { server: None, url },
                    None => Self::start(Options::default()).await,
                }
            })
            .await
    }

    /// Starts a server of the test's own.
    ///
    /// # Panics
    /// When NATS is not on this machine or does not start.
    pub async fn start(options: Options) -> Self {
        let server = Server {
            child: Mutex::new(None),
            program: binaries::nats(),
            port: free_port(),
            monitor: free_port(),
            scratch: Scratch::new("nats"),
        };
        server.configure(&options);
        server.start().await;
        Self {
            url: format!("nats://127.0.0.1:{}", server.port),
            server: Some(server),
        }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port.
    ///
    /// # Panics
    /// When the server is not ours. So do all below.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.own().port
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        let child = self.own().locked();
        child.as_ref().expect("the server runs").pid()
    }

    /// A client of it.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(&self.url)
            .await
            .expect("a server that runs can be connected to")
    }

    /// Changes its settings from the next start on.
    pub fn configure(&self, options: &Options) {
        self.own().configure(options);
    }

    /// SIGKILL, as a crash.
    pub fn kill(&self) {
        if let Some(child) = self.own().locked().take() {
            child.kill();
        }
    }

    /// Ends it in good order.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn stop(&self) {
        let child = self.own().locked().take();
        if let Some(child) = child {
            child.term();
            child.wait(STOP_TAKES_AT_MOST).await;
        }
    }

    /// Starts it again after [`kill`](Self::kill) or [`stop`](Self::stop): same port, same data.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_again(&self) {
        self.own().start().await;
    }

    /// SIGSTOP: connections stay open and nothing answers. [`cont`](Self::cont) ends it.
    pub fn freeze(&self) {
        if let Some(child) = self.own().locked().as_ref() {
            child.stop();
        }
    }

    /// Lets a frozen server go on.
    pub fn cont(&self) {
        if let Some(child) = self.own().locked().as_ref() {
            child.cont();
        }
    }

    fn own(&self) -> &Server {
        self.server
            .as_ref()
            .expect("ONCEWARD_TEST_NATS_URL names a server that is not the test's to stop")
    }
}

impl Server {
    fn configure(&self, options: &Options) {
        let data = self.scratch.path().join("data");
        let mut text = format!(
            "listen: 127.0.0.1:{}\nhttp: 127.0.0.1:{}\njetstream {{ store_dir: {:?} }}\n",
            self.port, self.monitor, data
        );
        if let Some(bytes) = options.max_payload {
            text.push_str(&format!("max_payload: {bytes}\n"));
        }
        if let Some(port) = options.advertised_port {
            text.push_str(&format!("client_advertise: \"127.0.0.1:{port}\"\n"));
        }
        text.push_str(&options.config);
        std::fs::write(self.config(), text).expect("the temporary directory is writable");
    }

    fn config(&self) -> PathBuf {
        self.scratch.path().join("nats.conf")
    }

    async fn start(&self) {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.config());
        let child = Child::spawn_in(self.scratch.path(), "nats", None, &command);
        wait::until_true(START_TAKES_AT_MOST, "NATS to be healthy", || async {
            let ended = child.try_wait();
            assert!(
                ended.is_none(),
                "NATS ended at its start ({ended:?}):\n{}",
                child.last_lines()
            );
            healthy(self.monitor).await
        })
        .await;
        *self.locked() = Some(child);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child
            .lock()
            .expect("no thread panics while it holds the server")
    }
}

async fn healthy(monitor: u16) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(("127.0.0.1", monitor)).await?;
        stream
            .write_all(b"GET /healthz?js-enabled-only=true HTTP/1.0\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(ANSWER_TAKES_AT_MOST, asked).await;
    matches!(answer, Ok(Ok(answer)) if answer.starts_with(b"HTTP/1.0 200") || answer.starts_with(b"HTTP/1.1 200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn stored(nats: &Nats, stream: &str) -> u64 {
        let jetstream = async_nats::jetstream::new(nats.client().await);
        jetstream
            .get_stream(stream)
            .await
            .unwrap()
            .get_info()
            .await
            .unwrap()
            .state
            .messages
    }

    async fn store_one(nats: &Nats) {
        let jetstream = async_nats::jetstream::new(nats.client().await);
        let config = async_nats::jetstream::stream::Config {
            name: "kept".into(),
            subjects: vec!["kept.*".into()],
            ..Default::default()
        };
        jetstream.create_stream(config).await.unwrap();
        jetstream
            .publish("kept.one", "1".into())
            .await
            .unwrap()
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn what_was_stored_survives_a_kill_and_a_stop() {
        let nats = Nats::start(Options::default()).await;
        store_one(&nats).await;

        nats.kill();
        assert!(async_nats::connect(nats.url()).await.is_err());
        nats.start_again().await;
        assert_eq!(stored(&nats, "kept").await, 1);
        nats.stop().await;
        nats.start_again().await;

        assert_eq!(stored(&nats, "kept").await, 1);
    }

    #[tokio::test]
    async fn a_limit_can_be_raised_between_two_runs() {
        let nats = Nats::start(Options {
            max_payload: Some(100),
            ..Options::default()
        })
        .await;
        assert_eq!(nats.client().await.server_info().max_payload, 100);

        nats.kill();
        nats.configure(&Options {
            max_payload: Some(1000),
            ..Options::default()
        });
        nats.start_again().await;

        assert_eq!(nats.client().await.server_info().max_payload, 1000);
    }

    #[tokio::test]
    async fn the_shared_server_is_one() {
        let (one, two) = (Nats::shared().await, Nats::shared().await);

        assert_eq!(one.url(), two.url());
        assert_eq!(
            one.client().await.connection_state(),
            async_nats::connection::State::Connected
        );
    }
}
