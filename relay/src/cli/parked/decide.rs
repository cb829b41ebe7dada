//! `onceward parked replay` and `onceward parked discard`.

use clap::Args;
use onceward::{LogAdmin, ParkedFilter, ParkedState};
use serde::Serialize;

use crate::cli::bulk::{Which, refuse_left};
use crate::cli::failure::Failure;
use crate::cli::output::{confirm, counted};
use crate::cli::{Context, database, known, progress, who};

/// How many messages are decided about in one statement.
const PAGE: usize = 500;

/// Make parked messages due: the relay that holds the stream publishes them again
///
/// They arrive late: unless the key was held, later messages of it are at the broker already. A discarded message can be replayed too.
#[derive(Debug, Args)]
#[command(
    override_usage = "onceward parked replay [OPTIONS] <STREAM> <NUMBER>...
       onceward parked replay [OPTIONS] <STREAM> --all"
)]
#[command(after_help = "Examples:
  onceward parked replay events 1207 1208
  onceward parked replay events --all --topic orders.created")]
pub(super) struct Replay {
    #[command(flatten)]
    chosen: Chosen,
}

/// Decide that parked messages are not to be published
///
/// Their rows stay for a while, with what happened to them; until then they can be replayed all the same.
#[derive(Debug, Args)]
#[command(
    override_usage = "onceward parked discard [OPTIONS] <STREAM> <NUMBER>...
       onceward parked discard [OPTIONS] <STREAM> --all"
)]
#[command(after_help = "Examples:
  onceward parked discard events 1207
  onceward parked discard events --all --topic orders.test --yes")]
pub(super) struct Discard {
    #[command(flatten)]
    chosen: Chosen,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Chosen {
    /// The stream that set them aside
    stream: String,
    #[command(flatten)]
    which: Which,
    /// With --all: about this topic only
    #[arg(long, requires = "all", conflicts_with = "numbers")]
    topic: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    stream: String,
    /// What was done with the numbers below.
    done: &'static str,
    numbers: Vec<i64>,
    /// How many were named, or matched.
    matched: usize,
    /// Asked for by number, and in no state in which that can be done.
    left: Vec<i64>,
}

/// What was decided about, and why no more.
#[derive(Debug, Default)]
struct Changed {
    numbers: Vec<i64>,
    /// Those of the pages that were answered: of others it is not known.
    asked: Vec<i64>,
    failed: Option<Failure>,
}

impl Changed {
    /// Adds what became of a page. False: it failed, and so would the next one.
    fn add(&mut self, page: &[i64], changed: Result<Vec<i64>, Failure>) -> bool {
        match changed {
            Ok(numbers) => {
                self.numbers.extend(numbers);
                self.asked.extend(page);
            }
            Err(failure) => self.failed = Some(failure),
        }
        self.failed.is_none()
    }
}

impl Replay {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut admin = database::deciding_admin(context, "onceward parked").await?;
        let numbers = self.chosen.numbers(context, &mut admin).await?;
        let (stream, by) = (&self.chosen.stream, who(context));
        let mut changed = Changed::default();
        for page in numbers.chunks(PAGE) {
            let due = admin.replay_parked(stream, page, &by).await;
            if !changed.add(page, due.map_err(database::failed("making messages due"))) {
                break;
            }
        }
        self.chosen.answer(context, "due", numbers.len(), changed)
    }
}

impl Discard {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut admin = database::deciding_admin(context, "onceward parked").await?;
        let numbers = self.chosen.numbers(context, &mut admin).await?;
        let (stream, by) = (&self.chosen.stream, who(context));
        if !numbers.is_empty() {
            let messages = counted(numbers.len(), "message");
            confirm(
                &format!("Give up {messages} of the stream {stream}?"),
                self.yes,
            )?;
        }
        let mut changed = Changed::default();
        for page in numbers.chunks(PAGE) {
            let discarded = admin.discard_parked(stream, page, &by).await;
            if !changed.add(
                page,
                discarded.map_err(database::failed("discarding messages")),
            ) {
                break;
            }
        }
        self.chosen
            .answer(context, "discarded", numbers.len(), changed)
    }
}

impl Chosen {
    /// The numbers that were named, or those of all that wait. An unknown stream is no empty one.
    async fn numbers(&self, context: &Context, admin: &mut LogAdmin) -> Result<Vec<i64>, Failure> {
        known::stream(context, admin, &self.stream).await?;
        if !self.which.all {
            return Ok(self.which.numbers.clone());
        }
        let mut filter = ParkedFilter {
            stream: Some(self.stream.clone()),
            state: Some(ParkedState::Parked),
            topic: self.topic.clone(),
            after: None,
        };
        let mut numbers = Vec::new();
        loop {
            let page = admin.parked(&filter, PAGE).await;
            let page = page.map_err(database::failed("listing the parked messages"))?;
            numbers.extend(page.iter().map(|message| message.seq));
            match page.last() {
                Some(last) if page.len() == PAGE => {
                    filter.after = Some((last.stream.clone(), last.seq));
                    progress(context, &format!("{} messages found", numbers.len()));
                }
                Some(_) | None => return Ok(numbers),
            }
        }
    }

    /// Tells what was done, also before it failed.
    fn answer(
        self,
        context: &Context,
        done: &'static str,
        matched: usize,
        changed: Changed,
    ) -> Result<(), Failure> {
        let Changed {
            numbers,
            asked,
            failed,
        } = changed;
        let messages = counted(numbers.len(), "message");
        let things = format!("{messages} of the stream {}", self.stream);
        let answer = Answer {
            stream: self.stream,
            done,
            left: self.which.left(&asked, &numbers),
            numbers,
            matched,
        };
        context.output.answer(&answer, |answer| {
            self.which.sentence(&things, done, answer.matched)
        })?;
        if let Some(failure) = failed {
            return Err(failure);
        }
        refuse_left(
            &answer.left,
            "they are not there, or in another state: see `onceward parked show`",
        )
    }
}
