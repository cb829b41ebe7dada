//! The crash guard of a batch: what may kill its process is written down before the handler runs, as of one message.

use futures_util::future::join_all;
use uuid::Uuid;

use super::{BatchOrder, BatchRan, Entry, Lot};
use crate::faults::{Failpoint, pass};
use crate::plan::Run;
use crate::plan::guard::Start;
use crate::transaction::{Database, Ran};

/// Those that the handler is to get, and that may kill its process: their places and marks.
fn suspects(entries: &[Entry<'_>], lots: &[Lot]) -> impl Iterator<Item = (usize, Uuid)> {
    let entries = entries.iter().zip(lots).enumerate();
    entries
        .filter(|(_, (entry, lot))| entry.suspect && **lot == Lot::Ours)
        .map(|(place, (entry, _))| (place, entry.mark.id))
}

impl Database {
    /// Says that the handler starts, while the marks keep everybody else from the messages. The run, if it may not: with the lots of
    /// those that are to be handled alone, if another life has left some of them.
    pub(super) async fn may_start_batch(
        order: &BatchOrder<'_>,
        lots: &[Lot],
    ) -> Result<(), BatchRan> {
        let suspects: Vec<(usize, Uuid)> = suspects(order.entries, lots).collect();
        let start = |(_, mark): &(usize, Uuid)| order.keeper.start(*mark, false, order.deadline);
        let starts = tokio::select! {
            biased;
            () = order.kill.cancelled() => {
                Self::batch_has_ended(order, lots).await;
                return Err(BatchRan::new(Run::Stopped, ""));
            }
            starts = join_all(suspects.iter().map(start)) => starts,
        };
        let before = lots;
        let mut lots = lots.to_vec();
        let mut run = None;
        for ((place, _), start) in suspects.iter().zip(starts) {
            match start {
                Ok(Start::Beside) => {}
                Ok(Start::Alone(_) | Start::NotBeside | Start::Never(_)) => {
                    lots[*place] = Lot::Alone;
                    run.get_or_insert_with(|| Ran::new(Run::Unfinished, ""));
                }
                Err(error) => run = Some(Ran::new(Run::Outage, error)),
            }
        }
        let Some(ran) = run else {
            if !suspects.is_empty() {
                pass(Failpoint::AfterStart);
            }
            return Ok(());
        };
        // Some may have been written all the same.
        Self::batch_has_ended(order, before).await;
        Err(BatchRan { ran, lots })
    }

    /// The handler has ended otherwise than by a commit that took the starts away. Only what it was to get can have a start of ours.
    pub(super) async fn batch_has_ended(order: &BatchOrder<'_>, lots: &[Lot]) {
        let suspects = suspects(order.entries, lots);
        join_all(suspects.map(|(_, mark)| order.keeper.end(mark))).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use onceward_core::{MAX_PAYLOAD, Message, Origin, Partition};

    use super::*;
    use crate::mark::Mark;

    #[test]
    fn only_what_the_handler_gets_of_a_batch_can_have_a_start_of_ours() {
        let draft = Message::json("t", &1).unwrap();
        let message = Arc::new(draft.finish(MAX_PAYLOAD).unwrap().message);
        let origin = Origin {
            broker: "memory",
            partition: Partition::new("p"),
            position: None,
            redelivered: None,
            sent_at: None,
        };
        let marks = [0, 1, 2, 3].map(|n| Mark {
            id: Uuid::from_u128(n),
            digest: None,
        });
        let entry = |mark, suspect| Entry {
            message: &message,
            mark,
            suspect,
            in_doubt: false,
            origin: &origin,
        };
        let entries = [
            entry(&marks[0], false),
            entry(&marks[1], true),
            entry(&marks[2], true),
            entry(&marks[3], true),
        ];
        let lots = [Lot::Ours, Lot::Duplicate, Lot::Alone, Lot::Ours];

        let suspects: Vec<_> = suspects(&entries, &lots).collect();

        assert_eq!(suspects, [(3, marks[3].id)]);
    }
}
