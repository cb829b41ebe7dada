//! One `postgres` process and its data directory.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Options, data, database};
use crate::process::Child;
use crate::scratch::remove_shared_memory;
use crate::{Scratch, binaries, free_port, wait};

const START_TAKES_AT_MOST: Duration = Duration::from_secs(60);
const STOP_TAKES_AT_MOST: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Server {
    child: Mutex<Option<Child>>,
    options: Options,
    bindir: PathBuf,
    port: u16,
    scratch: Scratch,
}

impl Server {
    pub(super) async fn start(options: Options) -> Self {
        let server = Self::prepare(options);
        data::create(&server.bindir, &server.data()).await;
        server.configure(&[]);
        server.start_again().await;
        server
    }

    /// Everything but data and process.
    pub(super) fn prepare(options: Options) -> Self {
        let bindir = data::reachable(options.bindir.clone().unwrap_or_else(binaries::postgres));
        let scratch = Scratch::new("pg");
        data::own_directory(&scratch.path().join("socket"));
        Self {
            child: Mutex::new(None),
            options,
            bindir,
            port: free_port(),
            scratch,
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn pid(&self) -> u32 {
        let child = self.locked();
        child.as_ref().expect("the server runs").pid()
    }

    pub(super) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Writes the settings: the testkit's own, then the server's, then the test's.
    pub(super) fn configure(&self, of_server: &[(&str, &str)]) {
        let socket = self.scratch.path().join("socket").display().to_string();
        let port = self.port.to_string();
        let fsync = if self.options.fsync { "on" } else { "off" };
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", &socket),
            ("wal_level", "logical"),
            ("max_connections", "300"),
            ("max_prepared_transactions", "20"),
            ("shared_buffers", "64MB"),
            // Its dynamic shared memory lies in the data directory, which is removed; elsewhere a killed server would leave it behind.
            ("dynamic_shared_memory_type", "mmap"),
            ("max_wal_size", "2GB"),
            ("fsync", fsync),
            ("full_page_writes", fsync),
            ("log_line_prefix", "%m [%p] %a "),
            ("timezone", "UTC"),
        ];
        let of_test = self
            .options
            .config
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let lines: String = own
            .into_iter()
            .chain(of_server.iter().copied())
            .chain(of_test)
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        // The last word: it is read after postgresql.conf, and a later line wins over an earlier one.
        data::write(&self.data().join("postgresql.auto.conf"), &lines);
    }

    pub(super) async fn start_again(&self) {
        let mut command = Command::new(self.bindir.join("postgres"));
        command.arg("-D").arg(self.data()).current_dir("/");
        let child = Child::spawn_in(self.scratch.path(), "postgres", data::user(), &command);
        let url = self.url("postgres");
        wait::until_true(START_TAKES_AT_MOST, "PostgreSQL to answer", || async {
            let ended = child.try_wait();
            assert!(
                ended.is_none(),
                "PostgreSQL ended at its start ({ended:?}):\n{}",
                child.last_lines()
            );
            database::answers(&url).await
        })
        .await;
        *self.locked() = Some(child);
    }

    pub(super) fn kill(&self) {
        if let Some(child) = self.locked().take() {
            // Stopped before looking: a backend that it forks after the look would survive it.
            child.stop();
            let all = processes(child.pid());
            for pid in &all {
                let _gone_already = kill(*pid, Signal::SIGKILL);
            }
            child.kill();
            // A start before they are gone is refused for shared memory in use.
            let patience = std::time::Instant::now() + Duration::from_secs(5);
            while all.iter().any(|pid| lives(*pid)) && std::time::Instant::now() < patience {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    pub(super) async fn stop(&self) {
        let child = self.locked().take();
        if let Some(child) = child {
            child.interrupt();
            child.wait(STOP_TAKES_AT_MOST).await;
        }
    }

    pub(super) fn freeze(&self, frozen: bool) {
        let signal = if frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        if let Some(child) = self.locked().as_ref() {
            // The postmaster first when freezing: it must not start more.
            if frozen {
                child.stop();
            }
            for pid in processes(child.pid()) {
                kill(pid, signal).ok();
            }
            if !frozen {
                child.cont();
            }
        }
    }

    /// One of its processes.
    pub(super) fn freeze_one(&self, pid: i32) {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("a process of the server runs");
    }

    pub(super) fn log(&self) -> String {
        self.locked()
            .as_ref()
            .map(Child::last_lines)
            .unwrap_or_default()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child
            .lock()
            .expect("no thread panics while it holds the server")
    }
}

impl Drop for Server {
    /// First the process, then what it leaves elsewhere; its files go at last.
    fn drop(&mut self) {
        let child = self.child.get_mut();
        // A test that panicked over its server drops it nevertheless.
        drop(child.unwrap_or_else(PoisonError::into_inner).take());
        remove_shared_memory(&self.data());
    }
}

/// Whether a process is there and holds anything: a zombie does not.
fn lives(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    !state.is_empty() && !state.starts_with('Z')
}

/// The children of a postmaster.
fn processes(postmaster: u32) -> Vec<Pid> {
    let path = format!("/proc/{postmaster}/task/{postmaster}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .collect()
}
