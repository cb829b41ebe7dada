//! Child processes that a test starts, kills, freezes and waits for. None outlives the test process, even when
//! that is killed.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::{Scratch, spawner, wait};

/// A running program, killed when this is dropped. What it prints lies in files.
#[derive(Debug)]
pub struct Child {
    name: String,
    pid: u32,
    // Locked for single system calls only; it keeps a signal from reaching a process that was reaped meanwhile.
    child: Mutex<std::process::Child>,
    output: Output,
    _scratch: Option<Scratch>,
}

/// The files that hold what a program prints.
#[derive(Debug)]
struct Output {
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Child {
    /// Starts `command` in a process group of its own. `name` is for messages.
    ///
    /// Program, arguments, working directory and *added or removed* variables are taken from `command`; its
    /// standard streams are not, and `env_clear` is not seen.
    ///
    /// # Panics
    /// When the program does not exist or cannot be started.
    #[must_use]
    pub fn spawn(name: &str, command: &Command) -> Self {
        let scratch = Scratch::new(name);
        let mut child = Self::spawn_in(scratch.path(), name, None, command);
        child._scratch = Some(scratch);
        child
    }

    /// As [`spawn`](Self::spawn), with its output in `directory`, and as another user if one is named.
    pub(crate) fn spawn_in(
        directory: &Path,
        name: &str,
        user: Option<&str>,
        command: &Command,
    ) -> Self {
        let output = Output {
            stdout: directory.join(format!("{name}.out")),
            stderr: directory.join(format!("{name}.err")),
        };
        let mut guarded = guarded(user, command);
        guarded.stdin(Stdio::null());
        guarded
            .stdout(append(&output.stdout))
            .stderr(append(&output.stderr));
        let child = spawner::spawn(guarded).unwrap_or_else(|error| {
            panic!("cannot start {name} through setpriv (package util-linux): {error}")
        });
        Self {
            name: name.to_owned(),
            pid: child.id(),
            child: Mutex::new(child),
            output,
            _scratch: None,
        }
    }

    /// The process id. It is the program's own: nothing stands between it and the test.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// SIGKILL, and waits until it is gone, which takes a moment only.
    pub fn kill(&self) {
        let mut child = self.locked();
        // Both fail only when it is gone already.
        drop(child.kill());
        drop(child.wait());
    }

    /// SIGTERM: asks it to end in good order.
    pub fn term(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// SIGINT, as Ctrl-C sends it.
    pub fn interrupt(&self) {
        self.signal(Signal::SIGINT);
    }

    /// SIGSTOP: freezes it where it is, as a long pause of the machine would. Returns once all of its threads stand: the signal
    /// reaches them one after the other, and on a busy machine some would go on for a while.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let stands = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        // An error says that it has ended and was waited for.
        waitid(Id::Pid(self.process()), stands).ok();
    }

    /// SIGCONT: lets a frozen one go on.
    pub fn cont(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Its exit status if it has ended.
    #[must_use]
    pub fn try_wait(&self) -> Option<ExitStatus> {
        self.locked()
            .try_wait()
            .expect("a child of ours can be waited for")
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// After `deadline`, with the last lines that it printed.
    pub async fn wait(&self, deadline: Duration) -> ExitStatus {
        let ended = wait::until(Duration::MAX, "the end of a child", || async {
            self.try_wait()
        });
        match tokio::time::timeout(deadline, ended).await {
            Ok(status) => status,
            Err(_) => panic!(
                "{} still runs after {deadline:?}; its last lines:\n{}",
                self.name,
                self.last_lines()
            ),
        }
    }

    /// All that it has printed to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.output.stdout)
    }

    /// All that it has printed to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        read(&self.output.stderr)
    }

    /// The last lines of both outputs, for a message.
    pub(crate) fn last_lines(&self) -> String {
        let both = format!("{}{}", self.stdout(), self.stderr());
        let lines: Vec<&str> = both.lines().collect();
        let skip = lines.len().saturating_sub(20);
        lines
            .iter()
            .skip(skip)
            .copied()
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn signal(&self, signal: Signal) {
        let mut child = self.locked();
        if matches!(child.try_wait(), Ok(None)) {
            // It may end in this very moment; then there is nobody to tell.
            signal::kill(self.process(), signal).ok();
        }
    }

    fn process(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.pid).expect("a process id is positive and small"))
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, std::process::Child> {
        self.child
            .lock()
            .expect("no thread panics while it holds a child")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `command` behind `setpriv`, which sets the parent-death signal and becomes the program: the pid stays.
fn guarded(user: Option<&str>, command: &Command) -> Command {
    let program = Path::new(command.get_program());
    assert!(
        program.components().count() == 1 || program.exists(),
        "there is no program {}",
        program.display()
    );
    let mut guarded = Command::new("setpriv");
    guarded.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        guarded
            .arg(format!("--reuid={user}"))
            .arg(format!("--regid={user}"))
            .arg("--init-groups");
    }
    guarded
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        guarded.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => guarded.env(name, value),
            None => guarded.env_remove(name),
        };
    }
    guarded.process_group(0);
    guarded
}

fn append(path: &Path) -> File {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()))
}

fn read(path: &Path) -> String {
    fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
