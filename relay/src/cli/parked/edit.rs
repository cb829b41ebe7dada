//! `onceward parked edit`.

use std::collections::BTreeMap;

use clap::Args;
use onceward::{Edited, LogAdmin, ParkedEdit, ParkedMessage};
use serde::Serialize;

use super::not_there;
use crate::cli::changes::Changes;
use crate::cli::failure::Failure;
use crate::cli::{Context, database, who};

/// Change a parked message before it is replayed
///
/// What is not named stays. Only a message that waits for a person can be changed; one that is due may be on its way.
/// Where its key is held (on_refusal = "hold"), another topic or key frees that key: the later messages of it no longer
/// wait for this one, and come before it. The answer says so.
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

#[derive(Debug, Serialize)]
struct Answer {
    stream: String,
    number: i64,
    edited: bool,
    /// None: making it due failed, and may be done all the same.
    due: Option<bool>,
    /// Later messages of the key that it had waited for it, and do no longer.
    frees_key: bool,
}

impl Edit {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (stream, number) = (self.stream, self.number);
        let mut admin = database::deciding_admin(context, "onceward parked").await?;
        let found = admin.parked_message(&stream, number).await;
        let found = found.map_err(database::failed("reading the parked message"))?;
        let Some(message) = found else {
            return Err(not_there(context, &mut admin, &stream, number).await);
        };
        let edit = edit(self.changes, &message)?;
        edit.check()
            .map_err(|error| Failure::usage("the change is not valid").because(error))?;
        let by = who(context);
        let edited = admin.edit_parked(&stream, number, &edit, &by).await;
        let edited = edited.map_err(database::failed("changing the parked message"))?;
        let Some(Edited { frees_key }) = edited else {
            return Err(not_waiting(&mut admin, &stream, number).await);
        };
        let mut answer = Answer {
            stream,
            number,
            edited: true,
            due: Some(false),
            frees_key,
        };
        let mut failed = None;
        if self.replay {
            let due = admin.replay_parked(&answer.stream, &[number], &by).await;
            answer.due = due.as_ref().ok().map(|due| !due.is_empty());
            failed = match due {
                Ok(due) if due.is_empty() => {
                    Some(not_waiting(&mut admin, &answer.stream, number).await)
                }
                Ok(_) => None,
                Err(error) => Some(database::failed("making the message due")(error)),
            };
        }
        // It is changed, whatever came then.
        context.output.answer(&answer, people)?;
        failed.map_or(Ok(()), Err)
    }
}

/// Somebody else may have decided in between.
async fn not_waiting(admin: &mut LogAdmin, stream: &str, number: i64) -> Failure {
    let state = match admin.parked_message(stream, number).await {
        Ok(Some(message)) => format!("it is {}", message.summary.state.name()),
        Ok(None) => "it is gone".to_owned(),
        Err(error) => return database::failed("reading the parked message")(error),
    };
    Failure::failed(format!(
        "message {number} of the stream {stream} does not wait for a person: {state}"
    ))
    .remedy("`onceward parked show` tells where it stands")
}

fn people(answer: &Answer) -> String {
    let then = match answer.due {
        Some(true) => "changed and due",
        Some(false) => "changed",
        None => "changed, and not known to be due",
    };
    let freed = if answer.frees_key {
        "\nthe key that it had is no longer held: later messages of that key are published now, and not after this one"
    } else {
        ""
    };
    format!(
        "message {} of the stream {}: {then}{freed}",
        answer.number, answer.stream
    )
}

fn edit(changes: Changes, message: &ParkedMessage) -> Result<ParkedEdit, Failure> {
    Ok(ParkedEdit {
        key: changes.key(),
        headers: headers(&changes, message),
        payload: changes.payload()?,
        topic: changes.topic,
        kind: changes.kind,
        content_type: changes.content_type,
    })
}

/// All headers as they are to be; none if nothing is said about them.
fn headers(changes: &Changes, message: &ParkedMessage) -> Option<BTreeMap<String, String>> {
    if changes.set_header.is_empty() && changes.remove_header.is_empty() {
        return None;
    }
    let present = message.headers.iter();
    let mut headers: BTreeMap<String, String> = present
        .filter(|(name, _)| !changes.remove_header.iter().any(|removed| removed == name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    headers.extend(changes.set_header.iter().cloned());
    Some(headers)
}
