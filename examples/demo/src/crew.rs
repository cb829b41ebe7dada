//! The processes of the demo: each the real program, started as a service team would, and killed as a machine would.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use onceward_testkit::process::Child;

use crate::{counters, waiting};

const STOP_TAKES_AT_MOST: Duration = Duration::from_secs(20);

/// What a process does, as far as its metrics tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It holds the lease, or handles deliveries.
    Works,
    /// It would take over.
    StandsBy,
    /// It was killed.
    Killed,
}

/// A process that can be killed and started again.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// When it was last seen at work in this life.
    pub(crate) worked_at: Option<Instant>,
    /// Why it waits for its broker, if it is a relay that does.
    pub(crate) waits: Option<String>,
    command: Command,
    child: Option<Child>,
    metrics: Option<SocketAddr>,
    /// What earlier lives of it printed.
    log: String,
    handled: f64,
    duplicates: f64,
    duplicates_of_earlier_lives: f64,
}

impl Member {
    /// Starts it. Its metrics are asked for at `metrics`, if it has any.
    pub(crate) fn start(name: &str, command: Command, metrics: Option<SocketAddr>) -> Self {
        let child = Child::spawn(name, &command);
        Self {
            name: name.to_owned(),
            role: Role::StandsBy,
            worked_at: None,
            waits: None,
            command,
            child: Some(child),
            metrics,
            log: String::new(),
            handled: 0.0,
            duplicates: 0.0,
            duplicates_of_earlier_lives: 0.0,
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = self.child.take() {
            child.kill();
            self.keep_log(&child);
        }
        self.role = Role::Killed;
        self.worked_at = None;
        self.waits = None;
        self.handled = 0.0;
        self.duplicates_of_earlier_lives += std::mem::take(&mut self.duplicates);
    }

    /// Starts it again after [`kill`](Self::kill).
    pub(crate) fn start_again(&mut self) {
        self.child = Some(Child::spawn(&self.name, &self.command));
        self.role = Role::StandsBy;
    }

    /// Looks at what it exposes.
    pub(crate) async fn look(&mut self) {
        let (Some(_), Some(address)) = (&self.child, self.metrics) else {
            return;
        };
        let Some(text) = counters::scrape(address).await else {
            return;
        };
        let handled = counters::sum(&text, "onceward_handled_total", "outcome=\"handled\"");
        self.duplicates = counters::sum(&text, "onceward_handled_total", "outcome=\"duplicate\"");
        let holds = counters::sum(&text, "onceward_lease_held", "") > 0.0;
        let works = holds || handled > self.handled;
        self.handled = handled;
        self.role = if works { Role::Works } else { Role::StandsBy };
        self.waits = if holds {
            waiting::ask(address).await
        } else {
            None
        };
        if works {
            self.worked_at = Some(Instant::now());
        }
    }

    /// Duplicate deliveries that it has dropped in all of its lives. What it dropped in the moment before a kill is missing.
    pub(crate) fn duplicates(&self) -> f64 {
        self.duplicates_of_earlier_lives + self.duplicates
    }

    /// How it ended, if it has ended by itself.
    pub(crate) fn ended(&self) -> Option<String> {
        let child = self.child.as_ref()?;
        let status = child.try_wait()?;
        Some(format!(
            "{} ended by itself: {status}\n{}",
            self.name,
            child.stderr()
        ))
    }

    /// Asks it to end in good order and waits. False: it had to be killed, or ended with an error.
    pub(crate) async fn stop(&mut self) -> bool {
        let Some(child) = self.child.take() else {
            return true;
        };
        child.term();
        let ended = tokio::time::timeout(STOP_TAKES_AT_MOST, child.wait(Duration::MAX)).await;
        child.kill();
        self.keep_log(&child);
        ended.is_ok_and(|status| status.success())
    }

    fn keep_log(&mut self, child: &Child) {
        self.log.push_str(&child.stdout());
        self.log.push_str(&child.stderr());
    }

    /// Writes all that it has printed to a file in `directory`. Best effort.
    pub(crate) fn write_log(&mut self, directory: &Path) {
        if let Some(child) = self.child.take() {
            self.keep_log(&child);
            self.child = Some(child);
        }
        std::fs::write(directory.join(format!("{}.log", self.name)), &self.log).ok();
    }
}
