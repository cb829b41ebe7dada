//! `onceward dead-letters replay` and `onceward dead-letters discard`.

use std::collections::BTreeSet;

use clap::Args;
use onceward_consumer::dead_letter::{self, Filter, Replayed, To};
use serde::Serialize;
use uuid::Uuid;

use crate::cli::bulk::{Which, refuse_left};
use crate::cli::database::{self, Reached};
use crate::cli::failure::Failure;
use crate::cli::output::{confirm, counted};
use crate::cli::{Context, known, progress, rights, who};

/// How many are listed in one statement.
const PAGE: u32 = 500;

/// Give dead letters back to their consumer, or send them out as new messages
///
/// They are due at once, each behind what waits of its key, and count their attempts anew. The mark stays: copies that the
/// broker still has are dropped. A discarded one can be replayed too.
#[derive(Debug, Args)]
#[command(override_usage = "onceward dead-letters replay [OPTIONS] <NUMBER>...
       onceward dead-letters replay [OPTIONS] --all")]
#[command(after_help = "Examples:
  onceward dead-letters replay 1207 1208
  onceward dead-letters replay --all --consumer billing --reason attempts
  onceward dead-letters replay 1207 --as-new        every consumer of its topic gets it")]
pub(super) struct Replay {
    #[command(flatten)]
    chosen: Chosen,
    /// Through the log and the broker: new messages with new ids and the header onceward-replay-of. Refused where no stream
    /// of this database reads the topic: nobody would publish them
    #[arg(long)]
    as_new: bool,
}

/// Decide that dead letters are not to be handled
///
/// Their rows stay, with what happened to them, and can be replayed all the same.
#[derive(Debug, Args)]
#[command(override_usage = "onceward dead-letters discard [OPTIONS] <NUMBER>...
       onceward dead-letters discard [OPTIONS] --all")]
#[command(after_help = "Examples:
  onceward dead-letters discard 1207
  onceward dead-letters discard --all --consumer billing --reason no_handler --yes")]
pub(super) struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Chosen {
    #[command(flatten)]
    which: Which,
    /// With --all: of this consumer only
    #[arg(long, requires = "all", conflicts_with = "numbers")]
    consumer: Option<String>,
    /// With --all: with this reason only
    #[arg(long, requires = "all", conflicts_with = "numbers")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    /// What was done with the numbers below.
    done: &'static str,
    ids: Vec<i64>,
    /// The ids of the new messages, in the same order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    messages: Vec<Uuid>,
    /// How many were named, or matched.
    matched: usize,
    /// Asked for by number, and in no state in which that can be done.
    left: Vec<i64>,
}

impl Replay {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let config = &context.config.database;
        let reached = database::reach_schema(config, "onceward dead-letters").await?;
        rights::demand_admin(context, &reached).await?;
        let (to, done) = if self.as_new {
            (To::Everybody, "enqueued as new messages")
        } else {
            (To::Consumer, "replayed")
        };
        let mut answer = Answer {
            done,
            ids: Vec::new(),
            messages: Vec::new(),
            matched: 0,
            left: Vec::new(),
        };
        let mut stuck = Stuck::default();
        let by = who(context);
        let ids = self.chosen.numbers(context, &reached).await?;
        answer.matched = ids.len();
        let mut failed = None;
        for id in ids {
            let replay = dead_letter::replay(&reached.pool, &config.schema, id, to, &by);
            match reached.ask("replaying a dead letter", replay).await {
                Ok(Replayed::Done(message)) => {
                    answer.ids.push(id);
                    answer.messages.extend(message);
                }
                Ok(Replayed::NotThere) => answer.left.push(id),
                Ok(Replayed::NoType) => {
                    stuck.unreadable.push(id);
                    answer.left.push(id);
                }
                Ok(Replayed::NoStream { topic }) => {
                    stuck.unread.push((id, topic));
                    answer.left.push(id);
                }
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            }
        }
        self.chosen.answer(context, answer, &stuck, failed)
    }
}

impl Discard {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let config = &context.config.database;
        let reached = database::reach_schema(config, "onceward dead-letters").await?;
        rights::demand_admin(context, &reached).await?;
        let ids = self.chosen.numbers(context, &reached).await?;
        if !ids.is_empty() {
            let letters = counted(ids.len(), "dead letter");
            confirm(&format!("Give up {letters}?"), self.yes)?;
        }
        let by = who(context);
        let discard = dead_letter::discard(&reached.pool, &config.schema, &ids, &by);
        let done = reached.ask("discarding dead letters", discard).await?;
        let answer = Answer {
            done: "discarded",
            left: self.chosen.which.left(&ids, &done),
            messages: Vec::new(),
            matched: ids.len(),
            ids: done,
        };
        self.chosen.answer(context, answer, &Stuck::default(), None)
    }
}

impl Chosen {
    /// The numbers that were named, or those of all that wait: oldest first, as they were given up on.
    async fn numbers(&self, context: &Context, reached: &Reached) -> Result<Vec<i64>, Failure> {
        if !self.which.all {
            return Ok(self.which.numbers.clone());
        }
        if let Some(consumer) = &self.consumer {
            known::consumer(context, reached, consumer).await?;
        }
        if let Some(reason) = &self.reason {
            known::reason(context, reached, reason).await?;
        }
        let schema = &context.config.database.schema;
        let mut filter = Filter {
            consumer: self.consumer.clone(),
            reason: self.reason.clone(),
            limit: PAGE,
            ..Filter::default()
        };
        let mut ids = Vec::new();
        loop {
            let page = dead_letter::list(&reached.pool, schema, &filter);
            let page = reached.ask("listing the dead letters", page).await?;
            ids.extend(page.iter().map(|letter| letter.id));
            match page.last() {
                Some(last) if page.len() == PAGE as usize => {
                    filter.before = Some(last.id);
                    progress(context, &format!("{} dead letters found", ids.len()));
                }
                Some(_) | None => {
                    ids.reverse();
                    return Ok(ids);
                }
            }
        }
    }

    /// Tells what was done, also before it failed.
    fn answer(
        &self,
        context: &Context,
        answer: Answer,
        stuck: &Stuck,
        failed: Option<Failure>,
    ) -> Result<(), Failure> {
        context.output.answer(&answer, |answer| {
            let letters = counted(answer.ids.len(), "dead letter");
            self.which.sentence(&letters, answer.done, answer.matched)
        })?;
        if let Some(failure) = failed {
            return Err(failure);
        }
        // With --all others decide meanwhile; what cannot be replayed is told in any case.
        let left = if self.which.all {
            stuck.ids()
        } else {
            answer.left
        };
        refuse_left(&left, &stuck.remedy())
    }
}

/// What cannot be replayed as it is.
#[derive(Debug, Default)]
struct Stuck {
    /// Without a type.
    unreadable: Vec<i64>,
    /// About a topic that no stream of this database reads, and so not to be replayed as new messages.
    unread: Vec<(i64, String)>,
}

impl Stuck {
    fn ids(&self) -> Vec<i64> {
        let unread = self.unread.iter().map(|(id, _)| *id);
        let mut ids: Vec<i64> = self.unreadable.iter().copied().chain(unread).collect();
        ids.sort_unstable();
        ids
    }

    fn remedy(&self) -> String {
        let mut remedies = Vec::new();
        if !self.unreadable.is_empty() {
            remedies.push("what could not be read has no type: give it one with `onceward dead-letters edit --type`".to_owned());
        }
        let topics: BTreeSet<&str> = self.unread.iter().map(|(_, topic)| &**topic).collect();
        if !topics.is_empty() {
            let topics: Vec<&str> = topics.into_iter().collect();
            remedies.push(format!(
                "no stream of this database reads {}, so nobody would publish the new messages: run a relay on this database with a stream for that, or replay them without --as-new",
                topics.join(", ")
            ));
        }
        if remedies.is_empty() {
            return "they are not there, or in another state: see `onceward dead-letters show`"
                .to_owned();
        }
        remedies.join("; ")
    }
}
