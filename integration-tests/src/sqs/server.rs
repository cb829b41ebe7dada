//! One ElasticMQ process and, where messages are to survive it, their database file.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;

use super::call::call;
use crate::process::Child;
use crate::{Scratch, binaries, free_port, wait};

const START_TAKES_AT_MOST: Duration = Duration::from_secs(60);
const STOP_TAKES_AT_MOST: Duration = Duration::from_secs(30);

/// Where ElasticMQ keeps queues and messages.
///
/// Its database is for tests that start the server again, and for no others: as it writes a message there, it reads what another
/// thread changes (the receipts of its deliveries), and now and then that fails (`requirement failed` in `DBMessage.from`, seen on 1.7.1).
/// The call then gets no answer for 21 s, and a 503; the queue stands still for as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// With the process they are gone.
    Memory,
    /// A database that writes at once: they survive a crash.
    Database,
}

#[derive(Debug)]
pub(super) struct Server {
    // Dropped in this order: first the process, then its files.
    child: Mutex<Option<Child>>,
    jars: PathBuf,
    port: u16,
    storage: Storage,
    scratch: Scratch,
}

impl Server {
    pub(super) async fn start(storage: Storage) -> Self {
        let server = Self {
            child: Mutex::new(None),
            jars: binaries::elasticmq(),
            port: free_port(),
            storage,
            scratch: Scratch::new("elasticmq"),
        };
        std::fs::write(server.config(), server.settings())
            .expect("the temporary directory is writable");
        server.spawn().await;
        server
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn storage(&self) -> Storage {
        self.storage
    }

    fn config(&self) -> PathBuf {
        self.scratch.path().join("elasticmq.conf")
    }

    /// Limits as strict as those of SQS.
    fn settings(&self) -> String {
        let port = self.port;
        let storage = match self.storage {
            Storage::Memory => String::new(),
            Storage::Database => format!(
                "messages-storage {{ enabled = true, driver-class-name = \"org.h2.Driver\", uri = \"jdbc:h2:{};WRITE_DELAY=0\", username = \"\", password = \"\" }}\n",
                self.scratch.path().join("h2/messages").display()
            ),
        };
        format!(
            "include classpath(\"application.conf\")\n\
             node-address {{ protocol = http, host = \"127.0.0.1\", port = {port}, context-path = \"\" }}\n\
             rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = \"127.0.0.1\", sqs-limits = strict }}\n\
             rest-stats {{ enabled = false }}\n\
             {storage}"
        )
    }

    pub(super) async fn start_again(&self) {
        assert!(
            self.storage == Storage::Database,
            "it has forgotten its queues: start it with Sqs::start_with_storage"
        );
        self.spawn().await;
    }

    async fn spawn(&self) {
        let mut command = Command::new("java");
        command.args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        command
            .arg(format!("-Dconfig.file={}", self.config().display()))
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg("org.elasticmq.server.Main")
            .current_dir(self.scratch.path());
        let child = Child::spawn_in(self.scratch.path(), "elasticmq", None, &command);
        let url = format!("http://127.0.0.1:{}", self.port);
        wait::until_true(START_TAKES_AT_MOST, "ElasticMQ to answer", || async {
            let ended = child.try_wait();
            assert!(
                ended.is_none(),
                "ElasticMQ ended at its start ({ended:?}):\n{}",
                child.last_lines()
            );
            call(&url, "ListQueues", &json!({})).await.is_ok()
        })
        .await;
        *self.locked() = Some(child);
    }

    pub(super) fn pid(&self) -> u32 {
        self.locked()
            .as_ref()
            .map(Child::pid)
            .expect("the server was killed or stopped")
    }

    pub(super) fn kill(&self) {
        if let Some(child) = self.locked().take() {
            child.kill();
        }
    }

    pub(super) async fn stop(&self) {
        let child = self.locked().take();
        if let Some(child) = child {
            child.term();
            child.wait(STOP_TAKES_AT_MOST).await;
        }
    }

    pub(super) fn freeze(&self, frozen: bool) {
        if let Some(child) = self.locked().as_ref() {
            if frozen { child.stop() } else { child.cont() }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child
            .lock()
            .expect("no thread panics while it holds the server")
    }
}
