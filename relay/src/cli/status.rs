//! `onceward status`: where each stream stands.

use clap::Args;
use onceward::schema::{self, StreamOverview, UnroutedTopic};
use onceward_consumer::dead_letter::{self, DeadLetterCount};
use onceward_consumer::schema::PausedType;
use onceward_core::Schema;
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

use super::failure::Failure;
use super::output::{Table, counted, plain, seconds, time, time_of};
use super::overview::Stream;
use super::{Context, database};

/// Show where each stream stands
///
/// Depth is an estimate that costs nothing: the highest number in the log less the one that was read, other lanes'
/// numbers and other streams' topics included. The age is that of the oldest message of the lane behind the
/// cursor, of any topic; in the line of a detour that of the oldest message of its own.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward status
  onceward status --json | jq '.streams[].lanes[] | {lane, depth}'")]
pub(super) struct Status {}

#[derive(Debug, Serialize)]
struct Answer {
    streams: Vec<Stream>,
    unrouted: Vec<Unrouted>,
    /// None if this user may not see them.
    dead_letters: Option<Vec<DeadLetterCount>>,
    /// As above.
    paused_types: Option<Vec<PausedType>>,
}

#[derive(Debug, Serialize)]
struct Unrouted {
    topic: String,
    slots: i64,
    noted_seconds: f64,
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let reached = database::reach_schema(&context.config.database, "onceward status").await?;
        let (pool, schema) = (&reached.pool, &context.config.database.schema);
        let (streams, unrouted) = reached
            .ask("the status of the streams", read(pool, schema))
            .await?;
        let counts = reached
            .ask("the count of dead letters", dead_letters(pool, schema))
            .await?;
        let paused = reached
            .ask("the paused types", paused_types(pool, schema))
            .await?;
        let answer = Answer {
            streams: Stream::all(context, streams),
            unrouted: unrouted.into_iter().map(Unrouted::from).collect(),
            dead_letters: counts,
            paused_types: paused,
        };
        context.output.answer(&answer, people)
    }
}

async fn read(
    pool: &PgPool,
    schema: &Schema,
) -> Result<(Vec<StreamOverview>, Vec<UnroutedTopic>), onceward_core::BoxError> {
    let mut connection = pool.acquire().await?;
    let streams = schema::overview(&mut connection, schema).await?;
    let mut unrouted = schema::unrouted(&mut connection, schema).await?;
    unrouted.retain(|topic| !schema::is_read(&topic.topic, &streams));
    Ok((streams, unrouted))
}

/// The relay's role may not see dead letters: that is no failure.
async fn dead_letters(
    pool: &PgPool,
    schema: &Schema,
) -> Result<Option<Vec<DeadLetterCount>>, sqlx::Error> {
    match dead_letter::counts(pool, schema).await {
        Ok(counts) => Ok(Some(counts)),
        Err(error) if database::is_forbidden(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// As for dead letters.
async fn paused_types(
    pool: &PgPool,
    schema: &Schema,
) -> Result<Option<Vec<PausedType>>, sqlx::Error> {
    match onceward_consumer::schema::paused_types(pool, schema).await {
        Ok(types) => Ok(Some(types)),
        Err(error) if database::is_forbidden(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<UnroutedTopic> for Unrouted {
    fn from(topic: UnroutedTopic) -> Self {
        Self {
            topic: topic.topic,
            slots: topic.slots,
            noted_seconds: topic.noted_seconds,
        }
    }
}

fn people(answer: &Answer) -> String {
    let mut text = streams(answer);
    text.push_str(&paused(answer));
    for waiting in answer.streams.iter().filter_map(Stream::waiting_text) {
        text.push_str(&format!("\n{waiting}"));
    }
    for unrouted in &answer.unrouted {
        let topic = plain(&unrouted.topic);
        let slots = counted(unrouted.slots, "slot");
        text.push_str(&format!(
            "\nno stream reads the topic {topic}; it keeps {slots} from being emptied\n"
        ));
    }
    text.push_str(&letters(answer.dead_letters.as_deref()));
    text.push_str(&failing(answer.paused_types.as_deref().unwrap_or_default()));
    text
}

fn failing(types: &[PausedType]) -> String {
    if types.is_empty() {
        return String::new();
    }
    let mut table = Table::new(["CONSUMER", "FAILING TYPE", "SINCE", "KEYS", "ERROR"]);
    for one in types {
        table.row([
            one.consumer.clone(),
            plain(&one.kind),
            time(one.paused_at),
            one.waiting.to_string(),
            plain(&one.error),
        ]);
    }
    format!(
        "\n{}Most messages of a failing type fail: one at a time is tried, the others wait. Mend its handler, or what that depends on.\n",
        table.render()
    )
}

fn streams(answer: &Answer) -> String {
    if answer.streams.is_empty() {
        return "no streams yet: a relay creates them when it first runs\n".to_owned();
    }
    let mut table = Table::new([
        "STREAM", "LEASE", "LANE", "DEPTH", "OLDEST", "PARKED", "DUE",
    ]);
    for stream in &answer.streams {
        let mut first = true;
        for lane in &stream.lanes {
            let once = |text: String| if first { text } else { String::new() };
            let name = if lane.detour.is_empty() {
                lane.lane.to_owned()
            } else {
                format!("{} ({})", lane.lane, lane.detour)
            };
            table.row([
                once(stream.stream.clone()),
                once(stream.lease_text()),
                name,
                lane.depth.to_string(),
                lane.oldest_seconds.map_or("-".to_owned(), seconds),
                once(stream.parked.to_string()),
                once(stream.due.to_string()),
            ]);
            first = false;
        }
    }
    table.render()
}

fn paused(answer: &Answer) -> String {
    let mut table = Table::new(["PAUSED IN", "ROUTE", "SINCE", "REASON"]);
    let mut of_a_topic = false;
    for stream in &answer.streams {
        for pause in stream.paused.as_array().into_iter().flatten() {
            let text = |name: &str| {
                pause
                    .get(name)
                    .and_then(Value::as_str)
                    .unwrap_or("-")
                    .to_owned()
            };
            // The broker's name for the topic.
            let route = text("topic");
            of_a_topic |= !route.is_empty();
            // Without a name it is the destination as a whole.
            let route = if route.is_empty() {
                "(all)".to_owned()
            } else {
                route
            };
            table.row([
                stream.stream.clone(),
                route,
                time_of(&text("since")),
                text("reason"),
            ]);
        }
    }
    if table.is_empty() {
        return String::new();
    }
    let detours = if of_a_topic {
        "A topic that is paused for longer than `detour_after` no longer holds the others: it waits in a detour of its own.\n"
    } else {
        ""
    };
    format!("\n{}{detours}  to do: onceward doctor\n", table.render())
}

fn letters(counts: Option<&[DeadLetterCount]>) -> String {
    let Some(counts) = counts else {
        return "\ndead letters: this user may not see them; that takes the role onceward_admin\n"
            .to_owned();
    };
    if counts.is_empty() {
        return "\nno dead letters\n".to_owned();
    }
    let mut table = Table::new(["CONSUMER", "REASON", "DEAD LETTERS", "OLDEST"]);
    for count in counts {
        table.row([
            count.consumer.clone(),
            count.reason.clone(),
            count.count.to_string(),
            time(count.oldest),
        ]);
    }
    format!("\n{}  to do: onceward dead-letters list\n", table.render())
}
