//! W1: a committed backlog is drained. The witness is what the broker holds, not the relay's own word.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio::time::sleep;

use crate::Arguments;
use crate::backlog;
use crate::broker::Broker;
use crate::outcome::Outcome;
use crate::relay::Relay;
use crate::results::Results;
use crate::world::World;

/// How often the broker is asked.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// A drain that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(300);

/// What one drain came to.
struct Drained {
    rate: f64,
    memory: f64,
    cpu: f64,
}

pub(crate) async fn measure(
    world: &World,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    for per_transaction in [1, 1_000] {
        let database = world.database().await?;
        backlog::fill(database.pool(), arguments.messages, per_transaction).await?;
        for run in 0..arguments.repeats {
            copy(database.pool(), per_transaction, arguments, results).await?;
            for broker in Broker::ALL {
                let variant = format!("{} {per_transaction}/tx", broker.name());
                let at = ("W1", variant.as_str());
                let bare = broker.route(world).await?;
                let rate = broker
                    .publish_bare(world, &bare, arguments.messages)
                    .await?;
                results.add(at, "raw-client", ("rate", "msg/s"), rate);
                broker.forget(world, &bare).await?;

                let route = broker.route(world).await?;
                // A stream of a new name reads the same log from its beginning.
                let stream = format!("{}_{run}", broker.name());
                let relay = Relay::start(
                    &arguments.relay,
                    world,
                    database.url(),
                    &stream,
                    (broker, &route),
                )?;
                let drained = drain(world, &relay, (broker, &route), arguments.messages).await?;
                results.add(at, "onceward", ("rate", "msg/s"), drained.rate);
                results.add(at, "onceward", ("memory", "MiB"), drained.memory);
                results.add(at, "onceward", ("cpu_us_relay", "us/msg"), drained.cpu);
                broker.forget(world, &route).await?;
            }
        }
    }
    Ok(())
}

/// The same rows, copied out of the server as fast as it goes.
async fn copy(
    pool: &PgPool,
    per_transaction: u64,
    arguments: &Arguments,
    results: &mut Results,
) -> Outcome {
    use futures_util::TryStreamExt;
    let mut connection = pool.acquire().await?;
    let begun = Instant::now();
    let statement = "copy (select seq, id, topic, key, type, headers, payload, created_at from onceward.messages where lane = 1 order by seq) to stdout (format binary)";
    let mut rows = connection.copy_out_raw(statement).await?;
    let mut bytes = 0;
    while let Some(chunk) = rows.try_next().await? {
        bytes += chunk.len();
    }
    if bytes == 0 {
        return Err("COPY gave nothing".into());
    }
    let rate = per_second(arguments.messages, begun.elapsed());
    for broker in Broker::ALL {
        let variant = format!("{} {per_transaction}/tx", broker.name());
        results.add(("W1", &variant), "copy", ("rate", "msg/s"), rate);
    }
    Ok(())
}

/// Waits until the broker holds all messages; the clock runs from the first sample that shows one.
async fn drain(
    world: &World,
    relay: &Relay,
    (broker, route): (Broker, &str),
    messages: u64,
) -> Outcome<Drained> {
    let deadline = Instant::now() + DEADLINE;
    let mut first = None;
    loop {
        let held = broker.held(world, route).await?;
        if held > 0 && first.is_none() {
            first = Some((Instant::now(), held));
        }
        if held >= messages {
            break;
        }
        if let Some(why) = relay.ended() {
            return Err(why.into());
        }
        if Instant::now() > deadline {
            return Err(format!("{held} of {messages} after {DEADLINE:?}").into());
        }
        sleep(SAMPLE_EVERY).await;
    }
    let (begun, already) = first.ok_or("the backlog went in one sample; drain more messages")?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let cpu = relay.cpu_seconds()? * 1e6 / messages as f64;
    Ok(Drained {
        rate: per_second(messages - already, begun.elapsed()),
        memory: relay.peak_memory()?,
        cpu,
    })
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}
