//! The programs under test: built beside this test, started and killed, and heard when a test fails.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use onceward_testkit::cpu;
use onceward_testkit::process::Child;

const STOP_TAKES_AT_MOST: Duration = Duration::from_secs(30);

/// A running relay or consumer, killed when this is dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
}

/// A command for one of the examples of this package.
pub(crate) fn example(name: &str) -> Command {
    let this: PathBuf = std::env::current_exe().unwrap();
    let path = this.parent().unwrap().with_file_name("examples").join(name);
    assert!(
        path.exists(),
        "there is no {}: run `cargo build -p onceward-testkit --examples`",
        path.display()
    );
    Command::new(path)
}

impl Program {
    pub(crate) fn start(name: &str, command: &Command) -> Self {
        Self {
            name: name.to_owned(),
            child: Child::spawn(name, command),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// SIGKILL. It must still have been running.
    pub(crate) fn kill(&self) {
        self.runs();
        self.child.kill();
    }

    /// SIGSTOP.
    pub(crate) fn freeze(&self) {
        self.runs();
        self.child.stop();
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.child.cont();
    }

    /// Fails the test if it has ended by itself.
    pub(crate) fn runs(&self) {
        let ended = self.child.try_wait();
        assert!(ended.is_none(), "{} has ended: {ended:?}", self.name);
    }

    /// Waits until a failpoint has ended it.
    pub(crate) async fn crashed(&self, deadline: Duration) {
        use std::os::unix::process::ExitStatusExt as _;

        let status = self.child.wait(deadline).await;
        let signal = status.signal();
        assert_eq!(signal, Some(6), "{} ended with {status}", self.name);
    }

    /// Whether it has died by itself, as by a failpoint.
    pub(crate) fn has_died(&self) -> bool {
        use std::os::unix::process::ExitStatusExt as _;

        let ended = self.child.try_wait();
        let signal = ended.and_then(|status| status.signal());
        assert_eq!(
            signal.is_some(),
            ended.is_some(),
            "{} ended with {ended:?}",
            self.name
        );
        signal == Some(6)
    }

    /// SIGKILL, if it has not died meanwhile. True: it had not.
    pub(crate) fn kill_unless_it_died(&self) -> bool {
        self.child.kill();
        !self.has_died()
    }

    /// SIGTERM, upon which it must end well.
    pub(crate) async fn stop(&self) {
        self.term();
        self.stop_was_good().await;
    }

    /// Waits for the end that SIGTERM asked for.
    pub(crate) async fn stop_was_good(&self) {
        let status = self.child.wait(STOP_TAKES_AT_MOST).await;
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// SIGTERM. It must still have been running.
    pub(crate) fn term(&self) {
        self.runs();
        self.child.term();
    }

    /// Whether it has handled a delivery; for consumers.
    pub(crate) fn handles(&self) -> bool {
        self.child.stdout().contains("handling")
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        self.child.stderr()
    }

    /// How long it has kept a processor busy so far.
    pub(crate) fn busy(&self) -> Duration {
        cpu::of_process(self.pid()).unwrap()
    }

    /// How much of the machine's memory it uses, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(30)..];
            eprintln!("--- {}, last lines:\n{}", self.name, last.join("\n"));
        }
    }
}
