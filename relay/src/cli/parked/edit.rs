//! `onceward parked edit`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use onceward::{ParkedEdit, ParkedMessage};
use serde::Serialize;

use super::{not_there, who};
use crate::cli::failure::Failure;
use crate::cli::{Context, database};

/// Change a parked message before it is replayed
///
/// What is not named stays. Only a message that waits for a person can be changed; one that is due may be on its way.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward parked edit events 1207 --payload-file smaller.json
  onceward parked edit events 1207 --topic orders.archive --set-header tenant=acme --replay")]
pub(super) struct Edit {
    /// The stream that set it aside
    stream: String,
    /// Its number, as the list shows it
    number: i64,
    #[command(flatten)]
    changes: Changes,
    /// Make it due at once
    #[arg(long)]
    replay: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Changes {
    /// What it is about
    #[arg(long)]
    topic: Option<String>,
    /// Its key
    #[arg(long, conflicts_with = "no_key")]
    key: Option<String>,
    /// Take its key away: it then has no order
    #[arg(long)]
    no_key: bool,
    /// Its type
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// The media type of its payload
    #[arg(long)]
    content_type: Option<String>,
    /// Set a header; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = header)]
    set_header: Vec<(String, String)>,
    /// Remove a header; may be given several times
    #[arg(long, value_name = "NAME")]
    remove_header: Vec<String>,
    /// Its payload, out of a file; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    payload_file: Option<PathBuf>,
    /// Its payload, as it is
    #[arg(long, value_name = "TEXT")]
    payload: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    stream: String,
    number: i64,
    edited: bool,
    due: bool,
}

impl Edit {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (stream, number) = (self.stream, self.number);
        let mut admin = database::admin(context, "onceward parked").await?;
        let found = admin.parked_message(&stream, number).await;
        let found = found.map_err(database::failed("reading the parked message"))?;
        let message = found.ok_or_else(|| not_there(&stream, number))?;
        let edit = self.changes.edit(&message)?;
        edit.check()
            .map_err(|error| Failure::usage("the change is not valid").because(error))?;
        let edited = admin.edit_parked(&stream, number, &edit, &who()).await;
        if !edited.map_err(database::failed("changing the parked message"))? {
            let state = message.summary.state.name();
            return Err(Failure::failed(format!(
                "message {number} of the stream {stream} does not wait for a person: it was {state}"
            ))
            .remedy("`onceward parked show` tells where it stands"));
        }
        let mut answer = Answer {
            stream,
            number,
            edited: true,
            due: false,
        };
        if self.replay {
            let due = admin.replay_parked(&answer.stream, &[number], &who()).await;
            answer.due = !due
                .map_err(database::failed("making the message due"))?
                .is_empty();
        }
        context.output.answer(&answer, |answer| {
            let then = if answer.due {
                "changed and due"
            } else {
                "changed"
            };
            format!(
                "message {} of the stream {}: {then}",
                answer.number, answer.stream
            )
        })
    }
}

impl Changes {
    fn edit(self, message: &ParkedMessage) -> Result<ParkedEdit, Failure> {
        let headers = self.headers(message);
        let payload = match (&self.payload_file, self.payload) {
            (Some(path), _) => Some(read(path)?),
            (None, payload) => payload.map(String::into_bytes),
        };
        let key = if self.no_key {
            Some(None)
        } else {
            self.key.map(Some)
        };
        Ok(ParkedEdit {
            topic: self.topic,
            key,
            kind: self.kind,
            headers,
            content_type: self.content_type,
            payload,
        })
    }

    /// All headers as they are to be; none if nothing is said about them.
    fn headers(&self, message: &ParkedMessage) -> Option<BTreeMap<String, String>> {
        if self.set_header.is_empty() && self.remove_header.is_empty() {
            return None;
        }
        let present = message.headers.iter();
        let mut headers: BTreeMap<String, String> = present
            .filter(|(name, _)| !self.remove_header.iter().any(|removed| removed == name))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        headers.extend(self.set_header.iter().cloned());
        Some(headers)
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        std::fs::read(path).map(|content| bytes = content)
    };
    read.map_err(|error| {
        Failure::usage(format!(
            "the payload cannot be read from {}",
            path.display()
        ))
        .because(error)
    })?;
    Ok(bytes)
}

fn header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text
        .split_once('=')
        .ok_or("must be a name and a value, as in tenant=acme")?;
    Ok((name.to_owned(), value.to_owned()))
}
