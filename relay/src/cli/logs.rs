//! Where logs go: to standard error, as text on a terminal and as JSON otherwise.

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;

use tracing::error;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// The levels that go for us alone; clients of databases and brokers tell no less than what is wrong, and no more.
const LEVELS: [&str; 3] = ["info", "debug", "trace"];

/// Starts logging at the configured level, or at what the variable `RUST_LOG` says.
pub(super) fn start(log: &Log) {
    let said = std::env::var("RUST_LOG").ok();
    let mut directives = said.unwrap_or_else(|| of_level(&log.level));
    if !directives.contains("async_nats") {
        // A session never reconnects, and its client calls that an error each time one ends. The stream's own lines tell.
        directives.push_str(",async_nats::connector=off");
    }
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::builder().parse_lossy(directives))
        .with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    // Fails only if logging was started before, and then goes on as it was.
    let started = if json {
        subscriber.json().flatten_event(true).try_init()
    } else {
        subscriber.with_ansi(terminal).try_init()
    };
    drop(started);
    std::panic::set_hook(Box::new(panicked));
}

/// The directives of a level. What is no level alone is taken as it is.
fn of_level(level: &str) -> String {
    let word = level.trim().to_lowercase();
    if LEVELS.contains(&word.as_str()) {
        // By prefix: all crates of ours.
        format!("warn,onceward={word}")
    } else {
        level.to_owned()
    }
}

/// What a command that runs once logs: what a person should know, and nothing of what it prints anyway.
pub(super) fn start_quietly(format: LogFormat) {
    start(&Log {
        level: "warn,onceward_migrations=info".to_owned(),
        format,
    });
}

fn panicked(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let what = panic.payload_as_str().unwrap_or("no text");
    error!(location, what, "panicked: this is a bug; please report it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_that_of_our_own_crates_and_directives_are_taken_as_they_are() {
        assert_eq!(of_level("info"), "warn,onceward=info");
        assert_eq!(of_level("Debug"), "warn,onceward=debug");
        for given in ["error", "warn", "off", "info,async_nats=debug"] {
            assert_eq!(of_level(given), given);
        }
    }
}
