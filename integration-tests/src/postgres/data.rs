//! Data directories: `initdb` once per process and per version, then copies of that.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::{Gid, Uid, User};
use tokio::sync::Mutex;

use crate::Scratch;
use crate::process::Child;

const INITDB_TAKES_AT_MOST: Duration = Duration::from_secs(60);

// Locked over the awaits of `initdb` on purpose: whoever comes second waits for the template.
static TEMPLATES: Mutex<BTreeMap<PathBuf, Scratch>> = Mutex::const_new(BTreeMap::new());

/// The user that the server runs as: it refuses root.
pub(super) fn user() -> Option<&'static str> {
    Uid::effective().is_root().then(|| {
        if account("postgres").is_some() {
            "postgres"
        } else {
            "nobody"
        }
    })
}

fn account(name: &str) -> Option<(Uid, Gid)> {
    User::from_name(name)
        .ok()
        .flatten()
        .map(|user| (user.uid, user.gid))
}

/// Makes a directory that belongs to the server's user and to nobody else.
pub(super) fn own_directory(path: &Path) {
    std::fs::create_dir_all(path).expect("the temporary directory is writable");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
        .expect("the directory is ours");
    if let Some((uid, gid)) = user().and_then(account) {
        chown(path, Some(uid.as_raw()), Some(gid.as_raw()))
            .expect("root may give a directory away");
    }
}

/// Writes a file for the server's user.
pub(super) fn write(path: &Path, text: &str) {
    std::fs::write(path, text)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    if let Some((uid, gid)) = user().and_then(account) {
        chown(path, Some(uid.as_raw()), Some(gid.as_raw())).expect("root may give a file away");
    }
}

/// Puts a fresh cluster at `target`, which must not exist.
pub(super) async fn create(bindir: &Path, target: &Path) {
    let mut templates = TEMPLATES.lock().await;
    if !templates.contains_key(bindir) {
        let template = Scratch::new("pg-template");
        initdb(bindir, template.path()).await;
        templates.insert(bindir.to_owned(), template);
    }
    let template = templates
        .get(bindir)
        .expect("inserted above")
        .path()
        .join("data");
    drop(templates);
    copy(&template, target).expect("a copy of a cluster that is not running is complete");
}

async fn initdb(bindir: &Path, directory: &Path) {
    let data = directory.join("data");
    own_directory(&data);
    let mut command = Command::new(bindir.join("initdb"));
    command.arg("-D").arg(&data).current_dir("/");
    command.args([
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
        "--no-instructions",
    ]);
    let child = Child::spawn_in(directory, "initdb", user(), &command);
    let status = child.wait(INITDB_TAKES_AT_MOST).await;
    assert!(status.success(), "initdb failed:\n{}", child.last_lines());
}

/// Copies a directory with owners and modes. An error is what `cp` says: files that vanish under it, for instance.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let output = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A directory of programs that the server's user can reach: the one given, or a copy of its tree.
pub(super) fn reachable(bindir: PathBuf) -> PathBuf {
    static COPIES: std::sync::Mutex<BTreeMap<PathBuf, Scratch>> =
        std::sync::Mutex::new(BTreeMap::new());

    if user().is_none() || bindir.ancestors().all(everybody_may_enter) {
        return bindir;
    }
    // A checkout in root's home, for instance.
    let tree = bindir
        .parent()
        .expect("a directory of programs lies in an installation")
        .to_owned();
    let mut copies = COPIES
        .lock()
        .expect("no thread panics while it holds the copies");
    let copied = copies.entry(tree.clone()).or_insert_with(|| {
        let scratch = Scratch::new("pg-programs");
        copy(&tree, &scratch.path().join("tree")).expect("an installation can be read");
        scratch
    });
    copied.path().join("tree/bin")
}

fn everybody_may_enter(directory: &Path) -> bool {
    directory
        .metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
}
