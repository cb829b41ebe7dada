//! Names of streams and consumers that are not there: told with those that are. Pure, apart from the look-up.

use onceward::LogAdmin;
use onceward_consumer::dead_letter;

use super::Context;
use super::database::{self, Reached};
use super::failure::Failure;
use crate::config::nearest;

/// Refuses a stream that neither the database nor the configuration knows.
pub(super) async fn stream(
    context: &Context,
    admin: &mut LogAdmin,
    name: &str,
) -> Result<(), Failure> {
    let streams = admin.streams().await;
    let mut known = streams.map_err(database::failed("listing the streams"))?;
    // One that has never run has nothing parked, and is no slip of the pen.
    let configured = context.config.streams.iter();
    known.extend(configured.map(|stream| stream.settings.name.clone()));
    refuse_unknown("stream", name, &known)
}

/// Refuses a consumer that has never started on this database and has no dead letters there.
pub(super) async fn consumer(
    context: &Context,
    reached: &Reached,
    name: &str,
) -> Result<(), Failure> {
    let consumers = dead_letter::consumers(&reached.pool, &context.config.database.schema);
    let known = reached.ask("listing the consumers", consumers).await?;
    refuse_unknown("consumer", name, &known)
}

/// Refuses a reason that no dead letter can have. A newer consumer may know more of them: what the database holds counts too.
pub(super) async fn reason(
    context: &Context,
    reached: &Reached,
    name: &str,
) -> Result<(), Failure> {
    let mut known: Vec<String> = dead_letter::reasons().map(str::to_owned).collect();
    if known.iter().any(|known| known == name) {
        return Ok(());
    }
    let counts = dead_letter::counts(&reached.pool, &context.config.database.schema);
    let counts = reached.ask("listing the reasons", counts).await?;
    known.extend(counts.into_iter().map(|count| count.reason));
    refuse_unknown("reason", name, &known)
}

/// Fails unless the name is among the known ones.
pub(super) fn refuse_unknown(what: &str, name: &str, known: &[String]) -> Result<(), Failure> {
    if known.iter().any(|known| known == name) {
        return Ok(());
    }
    let mut names: Vec<&str> = known.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let meant =
        nearest(name, &names).map_or(String::new(), |near| format!("did you mean {near}? "));
    let remedy = if names.is_empty() {
        format!(
            "no {what} is known here yet; look whether database.url and database.schema are the right ones"
        )
    } else {
        format!("{meant}known here: {}", names.join(", "))
    };
    Err(Failure::failed(format!("there is no {what} {name}")).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_with_the_nearest_and_with_all() {
        let known = ["payments", "events", "events"].map(str::to_owned);

        let slip = refuse_unknown("stream", "evnts", &known).unwrap_err();
        let stranger = refuse_unknown("stream", "xyzzy", &known).unwrap_err();
        let empty = refuse_unknown("consumer", "billing", &[]).unwrap_err();

        assert!(refuse_unknown("stream", "events", &known).is_ok());
        assert_eq!(
            slip.to_string(),
            "error: there is no stream evnts\n  to do: did you mean events? known here: events, payments"
        );
        assert!(
            stranger
                .to_string()
                .ends_with("to do: known here: events, payments")
        );
        assert!(empty.to_string().contains("no consumer is known here yet"));
    }
}
