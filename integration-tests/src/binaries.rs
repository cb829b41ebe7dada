//! Finds the servers' programs on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `scripts/install-servers.sh` puts what it fetches.
fn servers() -> PathBuf {
    std::env::var_os("ONCEWARD_SERVERS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.servers"),
        PathBuf::from,
    )
}

/// The directory of `postgres` and `initdb`.
pub(crate) fn postgres() -> PathBuf {
    if let Some(named) = std::env::var_os("ONCEWARD_TEST_POSTGRES_BIN") {
        let named = PathBuf::from(named);
        assert!(
            holds_postgres(&named),
            "ONCEWARD_TEST_POSTGRES_BIN: no postgres and initdb in {}",
            named.display()
        );
        return named;
    }
    [
        by_pg_config(),
        by_path(),
        newest(Path::new("/usr/lib/postgresql")),
        postgres_newer(),
    ]
    .into_iter()
    .flatten()
    .find(|directory| holds_postgres(directory))
    .unwrap_or_else(|| missing("PostgreSQL", "postgres"))
}

/// The directory of `postgres` and `initdb` of a newer major, if one was fetched.
pub(crate) fn postgres_newer() -> Option<PathBuf> {
    newest(&servers())
}

/// The `nats-server` program.
pub(crate) fn nats() -> PathBuf {
    let fetched = servers().join("nats/nats-server");
    if fetched.is_file() {
        fetched
    } else {
        on_path("nats-server").unwrap_or_else(|| missing("NATS", "nats"))
    }
}

/// The directory of Kafka's jars.
pub(crate) fn kafka() -> PathBuf {
    let jars = servers().join("kafka");
    if !jars.is_dir() || on_path("java").is_none() {
        missing("Kafka (its jars and java)", "kafka")
    }
    jars
}

/// The directory of ElasticMQ's jars.
pub(crate) fn elasticmq() -> PathBuf {
    let jars = servers().join("elasticmq");
    if !jars.is_dir() || on_path("java").is_none() {
        missing("ElasticMQ (its jars and java)", "sqs")
    }
    jars
}

fn missing(server: &str, part: &str) -> ! {
    panic!(
        "{server} is not on this machine: run `scripts/install-servers.sh {part}`, or name a running one by URL"
    )
}

fn holds_postgres(directory: &Path) -> bool {
    directory.join("postgres").is_file() && directory.join("initdb").is_file()
}

fn by_pg_config() -> Option<PathBuf> {
    let answer = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(answer.stdout).ok()?.trim()))
}

fn by_path() -> Option<PathBuf> {
    let program = on_path("postgres")?.canonicalize().ok()?;
    program.parent().map(Path::to_owned)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// The `bin` of the highest version among directories such as `15` or `postgres-18`.
fn newest(parent: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(parent).ok()?;
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version: u32 = name.trim_start_matches("postgres-").parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .max()
        .map(|(_, directory)| directory)
}
