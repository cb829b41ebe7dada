//! Stores how far a stream has come, and what its readers passed that nobody reads.

use onceward_core::{Lane, Topic};
use serde::{Deserialize, Serialize};
use sqlx::Arguments;
use time::OffsetDateTime;

use super::detours::DetourCursor;
use super::{Commit, Keeper, Statement};
use crate::log::{Cursor, LogError, Snapshot};
use crate::sql::storable;

/// What to store at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The cursors behind chunks of which everything is confirmed without a gap, in the order of [`Lane::ALL`]; none
    /// for a lane that has not moved.
    pub cursors: [Option<Cursor>; 3],
    /// The same of detours that have moved.
    pub detours: Vec<DetourCursor>,
    /// Topics without a reader that the cursors pass. They are stored with or before the cursors that pass them.
    pub unrouted: Vec<Unrouted>,
}

/// A topic that no stream reads, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unrouted {
    /// The slot of the ring, which is kept from being emptied.
    pub slot: i16,
    /// The lane.
    pub lane: Lane,
    /// The topic.
    pub topic: Topic,
}

/// A topic that waits for its destination, for `status` to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedTopic {
    /// The topic or route; empty for the whole destination.
    pub topic: String,
    /// What the destination said.
    pub reason: String,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
}

/// By the primary keys of `cursors` and `unrouted`; locks the rows it moves. Its transaction gets its id after the cursors were read.
const CHECKPOINT: Statement = Statement {
    doing: "storing the cursors",
    also: "",
    commit: Commit::Soon,
    text: ",
moved as (
  update {{schema}}.cursors c
  set last_seq = n.last_seq,
    snapshot = n.snapshot::pg_snapshot,
    pinned = n.pinned::pg_snapshot,
    late_pos = n.late_pos,
    late_upto = n.last_seq,
    late_below = least(n.late_below::xid8, pg_current_xact_id())
  from unnest($4::smallint[], $5::bigint[], $6::text[], $7::text[], $8::bigint[], $12::text[], $13::text[])
    n(lane, last_seq, snapshot, pinned, late_pos, detour, late_below)
  where c.stream = $1 and c.lane = n.lane and c.detour = n.detour and exists (select from held)
  returning 1
),
noted as (
  insert into {{schema}}.unrouted (slot, lane, topic)
  select n.slot, n.lane, n.topic
  from unnest($9::smallint[], $10::smallint[], $11::text[]) n(slot, lane, topic)
  where exists (select from held)
  on conflict do nothing
  returning 1
)
select (select count(*) from held), pg_backend_pid(), (select count(*) from moved)",
};

impl Keeper {
    /// Stores cursors and renews the lease, all or nothing. A crash of the server may lose it: then what lies behind
    /// is published again. Call at most about ten times a second: while an old snapshot is held, a hot row is slow.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: stop at once; nothing was stored. Any other: it may or may not be stored.
    ///
    /// # Cancel safety
    /// Dropped, it may or may not be stored, whole; the connection is of no more use.
    pub async fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), LogError> {
        let main = Lane::ALL.into_iter().zip(&checkpoint.cursors);
        let main = main.filter_map(|(lane, cursor)| Some((lane, String::new(), cursor.as_ref()?)));
        let detours = checkpoint.detours.iter();
        let detours = detours.map(|one| (one.lane, one.detour.to_string(), &one.cursor));
        let cursors: Vec<(Lane, String, &Cursor)> = main.chain(detours).collect();
        let notes = &checkpoint.unrouted;
        self.under_lease(CHECKPOINT, |arguments| {
            let pinned = |cursor: &Cursor| cursor.paging.as_ref().map(|p| p.pinned.to_string());
            let late_pos = |cursor: &Cursor| cursor.paging.as_ref().map(|p| p.late_pos);
            let column = |get: fn(&Cursor) -> i64| -> Vec<i64> {
                cursors.iter().map(|(.., cursor)| get(cursor)).collect()
            };
            let snapshots = |get: fn(&Cursor) -> &Snapshot| -> Vec<String> {
                cursors
                    .iter()
                    .map(|(.., cursor)| get(cursor).to_string())
                    .collect()
            };
            let lanes = cursors.iter().map(|(lane, ..)| lane.number());
            arguments.add(lanes.collect::<Vec<_>>())?;
            arguments.add(column(|cursor| cursor.last))?;
            arguments.add(snapshots(|cursor| &cursor.snapshot))?;
            arguments.add(cursors.iter().map(|(.., c)| pinned(c)).collect::<Vec<_>>())?;
            arguments.add(
                cursors
                    .iter()
                    .map(|(.., c)| late_pos(c))
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(notes.iter().map(|note| note.slot).collect::<Vec<_>>())?;
            arguments.add(
                notes
                    .iter()
                    .map(|note| note.lane.number())
                    .collect::<Vec<_>>(),
            )?;
            arguments.add(
                notes
                    .iter()
                    .map(|note| note.topic.as_str())
                    .collect::<Vec<_>>(),
            )?;
            let names = cursors.iter().map(|(_, name, _)| name.as_str());
            arguments.add(names.collect::<Vec<_>>())?;
            let late_below = cursors.iter().map(|(.., cursor)| cursor.known_late_below());
            let late_below = late_below.map(|txid| txid.map(|txid| txid.to_string()));
            arguments.add(late_below.collect::<Vec<_>>())
        })
        .await
        .map(drop)
    }

    /// Stores what waits for its destination, in place of what was stored before.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: stop at once. Any other: it may or may not be stored.
    ///
    /// # Cancel safety
    /// That of [`checkpoint`](Self::checkpoint).
    pub async fn store_paused(&mut self, paused: &[PausedTopic]) -> Result<(), LogError> {
        const PAUSED: Statement = Statement {
            doing: "storing what is paused",
            also: ", paused = $4",
            text: "
select (select count(*) from held), pg_backend_pid()",
            commit: Commit::Soon,
        };

        let stored = |paused: &PausedTopic| PausedTopic {
            reason: storable(&paused.reason).into_owned(),
            ..paused.clone()
        };
        let paused: Vec<PausedTopic> = paused.iter().map(stored).collect();
        self.under_lease(PAUSED, |arguments| arguments.add(sqlx::types::Json(paused)))
            .await
            .map(drop)
    }
}
