//! `onceward parked replay` and `onceward parked discard`.

use clap::Args;
use onceward::{LogAdmin, ParkedFilter, ParkedState};
use serde::Serialize;

use crate::cli::failure::Failure;
use crate::cli::output::confirm;
use crate::cli::{Context, database, progress, who};

/// How many messages are decided about in one statement.
const PAGE: usize = 500;

/// Make parked messages due: the relay that holds the stream publishes them again
///
/// They arrive late: unless the key was held, later messages of it are at the broker already. A discarded message can be replayed too.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward parked replay events 1207 1208
  onceward parked replay events --all --topic orders.created")]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,
}

/// Decide that parked messages are not to be published
///
/// Their rows stay for a while, with what happened to them; until then they can be replayed all the same.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward parked discard events 1207
  onceward parked discard events --all --topic orders.test --yes")]
pub(super) struct Discard {
    #[command(flatten)]
    which: Which,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
struct Which {
    /// The stream that set them aside
    stream: String,
    /// Their numbers, as the list shows them
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    numbers: Vec<i64>,
    /// All that wait for a person
    #[arg(long)]
    all: bool,
    /// With --all: about this topic only
    #[arg(long, requires = "all")]
    topic: Option<String>,
}

#[derive(Debug, Serialize)]
struct Answer {
    stream: String,
    /// What was done with the numbers below.
    done: &'static str,
    numbers: Vec<i64>,
    /// Asked for by number, and in no state in which that can be done.
    left: Vec<i64>,
}

impl Replay {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut admin = database::admin(context, "onceward parked").await?;
        let numbers = self.which.numbers(context, &mut admin).await?;
        let mut changed = Vec::new();
        for page in numbers.chunks(PAGE) {
            let due = admin.replay_parked(&self.which.stream, page, &who()).await;
            changed.extend(due.map_err(database::failed("making messages due"))?);
        }
        self.which.answer(context, "due", &numbers, changed)
    }
}

impl Discard {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut admin = database::admin(context, "onceward parked").await?;
        let numbers = self.which.numbers(context, &mut admin).await?;
        if !numbers.is_empty() {
            let (count, stream) = (numbers.len(), &self.which.stream);
            confirm(
                &format!("Give up {count} messages of the stream {stream}?"),
                self.yes,
            )?;
        }
        let mut changed = Vec::new();
        for page in numbers.chunks(PAGE) {
            let discarded = admin.discard_parked(&self.which.stream, page, &who()).await;
            changed.extend(discarded.map_err(database::failed("discarding messages"))?);
        }
        self.which.answer(context, "discarded", &numbers, changed)
    }
}

impl Which {
    /// The numbers that were named, or those of all that wait.
    async fn numbers(&self, context: &Context, admin: &mut LogAdmin) -> Result<Vec<i64>, Failure> {
        if !self.all {
            return Ok(self.numbers.clone());
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

    fn answer(
        self,
        context: &Context,
        done: &'static str,
        asked: &[i64],
        changed: Vec<i64>,
    ) -> Result<(), Failure> {
        let left: Vec<i64> = asked
            .iter()
            .filter(|n| !changed.contains(n))
            .copied()
            .collect();
        let failure = (!left.is_empty() && !self.all).then(|| {
            let left: Vec<String> = left.iter().map(ToString::to_string).collect();
            Failure::failed(format!("left as they are: {}", left.join(", ")))
                .remedy("they are not there, or in another state: see `onceward parked show`")
        });
        let answer = Answer {
            stream: self.stream,
            done,
            numbers: changed,
            left,
        };
        context.output.answer(&answer, |answer| {
            format!(
                "{} messages of the stream {}: {}",
                answer.numbers.len(),
                answer.stream,
                answer.done
            )
        })?;
        failure.map_or(Ok(()), Err)
    }
}
