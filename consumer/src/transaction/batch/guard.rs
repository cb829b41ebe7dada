//! The crash guard of a batch: what may kill its process is written down before the handler runs, as of one message.

use futures_util::future::join_all;
use uuid::Uuid;

use super::{BatchOrder, BatchRan, Lot};
use crate::faults::{Failpoint, pass};
use crate::plan::Run;
use crate::plan::guard::Start;
use crate::transaction::Database;

/// Those that the handler is to get, and that may kill its process: their places and marks.
fn suspects(order: &BatchOrder<'_>, lots: &[Lot]) -> impl Iterator<Item = (usize, Uuid)> {
    let entries = order.entries.iter().zip(lots).enumerate();
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
        let suspects: Vec<(usize, Uuid)> = suspects(order, lots).collect();
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
                    run.get_or_insert_with(|| BatchRan::new(Run::Unfinished, ""));
                }
                Err(error) => run = Some(BatchRan::new(Run::Outage, error)),
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
        Err(BatchRan { lots, ..ran })
    }

    /// The handler has ended otherwise than by a commit that took the starts away. Only what it was to get can have a start of ours.
    pub(super) async fn batch_has_ended(order: &BatchOrder<'_>, lots: &[Lot]) {
        let suspects = suspects(order, lots);
        join_all(suspects.map(|(_, mark)| order.keeper.end(mark))).await;
    }
}
