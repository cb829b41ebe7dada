//! `onceward dead-letters edit`.

use clap::Args;
use onceward_consumer::dead_letter::{self, Replayed, To};
use serde::Serialize;

use super::not_there;
use crate::cli::changes::Changes;
use crate::cli::failure::Failure;
use crate::cli::{Context, database, rights, who};

/// Change a dead letter before it is replayed
///
/// What is not named stays. The type chooses its handler. One that was replayed is in the hands of its consumer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward dead-letters edit 1207 --payload-file mended.json
  onceward dead-letters edit 1207 --type orders.created --set-header tenant=acme --replay")]
pub(super) struct Edit {
    /// Its number, as the list shows it
    id: i64,
    #[command(flatten)]
    changes: Changes,
    /// Give it back to its consumer at once
    #[arg(long)]
    replay: bool,
}

#[derive(Debug, Serialize)]
struct Answer {
    id: i64,
    edited: bool,
    /// None: replaying it failed, and may be done all the same.
    replayed: Option<bool>,
}

impl Edit {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let id = self.id;
        let config = &context.config.database;
        let edit = edit(self.changes)?;
        edit.check()
            .map_err(|error| Failure::usage("the change is not valid").because(error))?;
        let reached = database::reach_schema(config, "onceward dead-letters").await?;
        rights::demand_admin(context, &reached).await?;
        let (pool, schema, by) = (&reached.pool, &config.schema, who(context));
        let edited = dead_letter::edit(pool, schema, id, &edit, &by);
        if !reached.ask("changing the dead letter", edited).await? {
            let shown = dead_letter::show(pool, schema, id);
            let letter = reached.ask("reading the dead letter", shown).await?;
            let state = letter.ok_or_else(|| not_there(id))?.summary.state;
            return Err(Failure::failed(format!(
                "dead letter {id} does not wait for a person: it is {state}"
            ))
            .remedy("`onceward dead-letters show` tells where it stands"));
        }
        let mut answer = Answer {
            id,
            edited: true,
            replayed: Some(false),
        };
        let mut failed = None;
        if self.replay {
            let replay = dead_letter::replay(pool, schema, id, To::Consumer, &by);
            let replayed = reached.ask("replaying the dead letter", replay).await;
            answer.replayed = replayed
                .as_ref()
                .ok()
                .map(|replayed| matches!(replayed, Replayed::Done(_)));
            failed = replayed.and_then(|replayed| outcome(id, &replayed)).err();
        }
        // It is changed, whatever came then.
        context.output.answer(&answer, people)?;
        failed.map_or(Ok(()), Err)
    }
}

/// Whether it is with its consumer again, and if not, why.
fn outcome(id: i64, replayed: &Replayed) -> Result<(), Failure> {
    match replayed {
        Replayed::Done(_) => Ok(()),
        Replayed::NotThere => Err(Failure::failed(format!(
            "dead letter {id} was replayed or removed by somebody else meanwhile"
        ))
        .remedy("`onceward dead-letters show` tells where it stands")),
        // Only what is to be a new message needs a stream.
        Replayed::NoType | Replayed::NoStream { .. } => Err(Failure::failed(format!(
            "dead letter {id} cannot be replayed: it has no type"
        ))
        .remedy("give it one, with --type")),
    }
}

fn people(answer: &Answer) -> String {
    let then = match answer.replayed {
        Some(true) => "changed and replayed",
        Some(false) => "changed",
        None => "changed, and not known to be replayed",
    };
    format!("dead letter {}: {then}", answer.id)
}

fn edit(changes: Changes) -> Result<dead_letter::Edit, Failure> {
    Ok(dead_letter::Edit {
        key: changes.key(),
        payload: changes.payload()?,
        topic: changes.topic,
        kind: changes.kind,
        set_headers: changes.set_header.into_iter().collect(),
        remove_headers: changes.remove_header,
        content_type: changes.content_type,
    })
}
