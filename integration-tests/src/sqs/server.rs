//! One ElasticMQ process and its database file.

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

#[derive(Debug)]
pub(super) struct Server {
    // Dropped in this order: first the process, then its files.
    child: Mutex<Option<Child>>,
    jars: PathBuf,
    port: u16,
    scratch: Scratch,
}

impl Server {
    pub(super) async fn start() -> Self {
        let server = Self {
            child: Mutex::new(None),
            jars: binaries::elasticmq(),
            port: free_port(),
            scratch: Scratch::new("elasticmq"),
        };
        std::fs::write(server.config(), server.settings())
            .expect("the temporary directory is writable");
        server.start_again().await;
        server
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn config(&self) -> PathBuf {
        self.scratch.path().join("elasticmq.conf")
    }

    /// Limits as strict as those of SQS, and messages in a database that writes at once: they survive a crash.
    fn settings(&self) -> String {
        let port = self.port;
        let data = self.scratch.path().join("h2/messages");
        format!(
            "include classpath(\"application.conf\")\n\
             node-address {{ protocol = http, host = \"127.0.0.1\", port = {port}, context-path = \"\" }}\n\
             rest-sqs {{ enabled = true, bind-port = {port}, bind-hostname = \"127.0.0.1\", sqs-limits = strict }}\n\
             rest-stats {{ enabled = false }}\n\
             messages-storage {{ enabled = true, driver-class-name = \"org.h2.Driver\", uri = \"jdbc:h2:{};WRITE_DELAY=0\", username = \"\", password = \"\" }}\n",
            data.display()
        )
    }

    pub(super) async fn start_again(&self) {
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
