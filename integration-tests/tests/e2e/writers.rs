//! A workload that is written beside a test, until it is told to stop.

use onceward_testkit::ledger::{Stop, Workload, Written};
use tokio::task::JoinHandle;

/// Writers under way.
pub(crate) struct Writers {
    stop: Stop,
    task: JoinHandle<Written>,
}

impl Writers {
    pub(crate) fn begin(url: &str, workload: Workload) -> Self {
        let stop = Stop::new();
        let (url, told) = (url.to_owned(), stop.clone());
        let task = tokio::spawn(async move { workload.run(&url, told).await });
        Self { stop, task }
    }

    /// Lets them end what they are at.
    pub(crate) async fn stop(self) -> Written {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}
