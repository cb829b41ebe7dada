//! One thread that starts every child and lives as long as the process.
//!
//! The kernel's parent-death signal fires when the *thread* that started a child ends. A test's thread ends with
//! the test, while shared servers go on: so no child is ever started from there.

use std::io;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

struct Job {
    command: Command,
    reply: Sender<io::Result<Child>>,
}

/// Starts `command` from the one thread. Takes a few milliseconds.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static JOBS: OnceLock<Sender<Job>> = OnceLock::new();

    let jobs = JOBS.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        std::thread::Builder::new()
            .name("testkit-spawner".into())
            .spawn(move || {
                for Job { mut command, reply } in queue {
                    // Nobody waits any more only when the asking thread panicked.
                    drop(reply.send(command.spawn()));
                }
            })
            .expect("the system has room for one more thread");
        jobs
    });
    let (reply, answer) = channel();
    jobs.send(Job { command, reply })
        .expect("the spawner's thread never ends");
    answer.recv().expect("the spawner's thread always answers")
}
