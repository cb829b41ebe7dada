//! Reads the sections that are there once: database, admin, log, retention.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use onceward_core::{Schema, Source};
use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

use super::reader::Reader;
use super::{Admin, Database, Log, LogFormat, address};

const DAY: Duration = Duration::from_secs(86_400);

/// The source of every message; a stream cannot do without.
pub(super) fn source(root: &mut Reader<'_>) -> Option<Source> {
    let given = root.has("source");
    let source = root.parsed("source", |text| Source::try_from(text));
    if !given && root.has("streams") {
        root.refuse(
            "source",
            "is missing; it is the CloudEvents source of all that this service publishes, as in \"/shop/orders\"",
        );
    }
    source
}

pub(super) fn database(mut section: Reader<'_>) -> Option<Database> {
    let url = section.secret("url", "url_file");
    if let Some(url) = &url {
        let url = url.expose_secret();
        if let Err(problem) = address::postgres(url) {
            section.refuse("url", problem);
        } else if PgConnectOptions::from_str(url).is_err() {
            section.refuse(
                "url",
                "is no PostgreSQL URL, as in \"postgres://user:password@host:5432/database\"",
            );
        }
    }
    let given = section.has("schema");
    let schema = section.parsed("schema", |text| Schema::try_from(text));
    let schema = if given {
        schema
    } else {
        Some(Schema::default())
    };
    let connect_timeout = section.duration(
        "connect_timeout",
        Duration::from_secs(10),
        Duration::from_millis(100)..=Duration::from_secs(300),
    );
    let answer_timeout = section.duration(
        "answer_timeout",
        Duration::from_secs(10),
        Duration::from_secs(1)..=Duration::from_secs(600),
    );
    section.finish();
    Some(Database {
        url,
        schema: schema?,
        connect_timeout,
        answer_timeout,
    })
}

pub(super) fn admin(mut section: Reader<'_>) -> Option<Admin> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9410));
    let given = section.has("listen");
    let listen = section.parsed("listen", |text| {
        text.parse::<SocketAddr>()
            .map_err(|_| "must be an address and a port, as in \"127.0.0.1:9410\"")
    });
    let listen = if given { listen } else { Some(default) };
    let has_token = section.has("token") || section.has("token_file");
    let token = section.secret("token", "token_file");
    if token
        .as_ref()
        .is_some_and(|token| token.expose_secret().len() < 8)
    {
        section.refuse("token", "must have at least 8 characters");
    }
    if let Some(listen) = listen
        && !listen.ip().is_loopback()
        && !has_token
    {
        section.refuse_value(
            "listen",
            &listen.to_string(),
            "others than this machine can reach it, so admin.token or admin.token_file must be set",
        );
    }
    section.finish();
    Some(Admin {
        listen: listen?,
        token,
    })
}

pub(super) fn log(mut section: Reader<'_>) -> Option<Log> {
    let given = section.has("level");
    let level = section.parsed("level", |text| match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("must be error, warn, info, debug or trace, or directives such as \"info,onceward_relay=debug\""),
    });
    let level = if given {
        level
    } else {
        Some("info".to_owned())
    };
    let format = section.choice(
        "format",
        &[
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
        ],
    );
    section.finish();
    Some(Log {
        level: level?,
        format: format.unwrap_or_default(),
    })
}

/// How long published messages are kept. That the ring can hold it is checked against the database.
pub(super) fn retention(mut section: Reader<'_>) -> Duration {
    let messages = section.duration("messages", 3 * DAY, Duration::from_secs(1)..=3_650 * DAY);
    section.finish();
    messages
}
