//! Directories for what servers write, removed when the process that made them is gone.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;

const REMOVERS_TAKE_AT_MOST: Duration = Duration::from_secs(60);

/// A directory that is removed when this is dropped, and at the latest when the process is gone.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a directory that any user may enter, with `name` in its own name.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let random: String = std::iter::repeat_with(fastrand::alphanumeric)
            .take(6)
            .collect();
        let path = of_process().join(format!("{name}-{random}"));
        make(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Self { path }
    }

    /// Where it is. At most some 60 bytes long below `/tmp`, so that a socket fits in.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !keep() {
            // What cannot be removed now is removed when the process ends.
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

fn keep() -> bool {
    std::env::var_os("ONCEWARD_TESTKIT_KEEP").is_some()
}

/// The directory of this process: `<base>/<pid>`.
fn of_process() -> &'static Path {
    struct OfProcess {
        path: PathBuf,
        // Its end of the pipe tells the remover that this process is gone, even when it was killed.
        _remover: Option<ChildStdin>,
    }
    static DIRECTORY: OnceLock<OfProcess> = OnceLock::new();

    let made = DIRECTORY.get_or_init(|| {
        let base = std::env::var_os("ONCEWARD_TESTKIT_DIR").map_or_else(
            // Of each user its own: nobody may write to another's.
            || {
                std::env::temp_dir().join(format!(
                    "onceward-testkit-{}",
                    nix::unistd::Uid::effective()
                ))
            },
            PathBuf::from,
        );
        make(&base).unwrap_or_else(|error| panic!("cannot make {}: {error}", base.display()));
        if !keep() {
            sweep(&base);
        }
        let path = base.join(std::process::id().to_string());
        make(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        OfProcess {
            _remover: remover(&path),
            path,
        }
    });
    &made.path
}

/// Has the directory removed when this process is gone, or what lies outside of it alone where files are kept. Servers die in the same
/// moment and may still write, so it is tried more than once.
fn remover(path: &Path) -> Option<ChildStdin> {
    let files = r#"for _ in 1 2 3 4 5; do sleep 0.2; rm -rf "$1" && exit; done"#;
    let files = if keep() { "" } else { files };
    let script = format!("{REMOVE_SHARED_MEMORY}\n{files}");
    waiter(&script, path.as_os_str())
}

/// Each PostgreSQL server has a segment of shared memory by which it knows whether another one runs on its data. One that is killed leaves
/// it behind, and a machine has room for some thousand of them. `postmaster.pid` holds key and id in its seventh line; in
/// some containers root may not remove what another user has made.
const REMOVE_SHARED_MEMORY: &str = r#"find "$1" -name postmaster.pid | while read -r file; do
    id="$(awk 'NR == 7 { print $2 }' "$file")"
    owner="$(stat -c %u "$file")"
    if [ "$owner" = "$(id -u)" ]; then ipcrm -m "$id"; else setpriv --reuid="$owner" ipcrm -m "$id"; fi
done"#;

/// Removes what killed PostgreSQL servers below `path` have left outside of their files.
pub(crate) fn remove_shared_memory(path: &Path) {
    let mut shell = Command::new("sh");
    shell.args(["-c", REMOVE_SHARED_MEMORY, "sh"]).arg(path);
    shell.stderr(Stdio::null());
    // Nothing stands in the way of a test without it.
    shell.status().ok();
}

/// Runs a line of shell, with `argument` as its `$1`, when this process is gone.
#[cfg(feature = "containers")]
pub(crate) fn at_end(script: &str, argument: &str) {
    static WAITERS: std::sync::Mutex<Vec<ChildStdin>> = std::sync::Mutex::new(Vec::new());

    let waiter = waiter(script, argument.as_ref());
    WAITERS
        .lock()
        .expect("no thread panics while it holds the waiters")
        .extend(waiter);
}

/// A shell that waits until its input ends, which it does when this process ends, and then runs `script`.
fn waiter(script: &str, argument: &OsStr) -> Option<ChildStdin> {
    use std::os::unix::process::CommandExt as _;

    let script = format!("while read -r _; do :; done; {script}");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &script, "waiter"])
        .arg(argument)
        .current_dir("/")
        .process_group(0);
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // Without it the next run sweeps.
    shell.spawn().ok().and_then(|mut child| child.stdin.take())
}

fn make(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    // PostgreSQL runs as another user when the tests run as root, and has to pass.
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Removes the directories of processes that are gone, and whose removers are too: they look at what lies in there.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let touched = entry.metadata().and_then(|entry| entry.modified());
        let age = touched.ok().and_then(|at| at.elapsed().ok());
        if age.is_none_or(|age| age < REMOVERS_TAKE_AT_MOST) {
            continue;
        }
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok());
        if pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(nix::errno::Errno::ESRCH)) {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
