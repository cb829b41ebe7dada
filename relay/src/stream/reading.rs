//! The stream's reading of the log: what is asked for, and where each row goes.

use std::time::Instant;

use onceward::{LaneRead, LogRow, Read, Unrouted};
use onceward_core::{Lane, Outgoing};

use super::holder::Holder;
use super::jobs::Done;
use super::routing::Way;
use crate::destination::Destination;
use crate::faults::{Failpoint, pass};

impl<D: Destination> Holder<D> {
    /// Reads on, if it is time and there is room.
    pub(super) fn read(&mut self, now: Instant) {
        if self.draining.is_some() || now < self.read_at || !self.routing.is_ready() {
            return;
        }
        let asks = self.asks();
        if asks.is_empty() {
            return;
        }
        let Some(mut reader) = self.reader.take() else {
            return;
        };
        // Late and new rows of each lane may bring as much.
        let bytes = self.window.byte_room() / (2 * asks.len());
        let publish_after = self.settings.publish_after.clone();
        self.jobs.spawn(async move {
            let result = reader.read(&asks, bytes, &publish_after).await;
            Done::Read(reader, result)
        });
    }

    /// Whether a read could bring anything that fits.
    pub(super) fn may_read(&self) -> bool {
        self.draining.is_none()
            && self.reader.is_some()
            && self.routing.is_ready()
            && !self.asks().is_empty()
    }

    fn asks(&self) -> Vec<LaneRead> {
        let ask = |(lane, cursor): (Lane, &onceward::Cursor)| {
            let limit = self.window.room(lane).min(self.settings.chunk);
            (limit > 0).then(|| LaneRead {
                lane,
                cursor: cursor.clone(),
                limit,
            })
        };
        Lane::ALL
            .into_iter()
            .zip(&self.cursors)
            .filter_map(ask)
            .collect()
    }

    pub(super) fn on_read(&mut self, read: Read) {
        self.clock.set(read.now);
        let mut rows = 0;
        for (lane, step) in read.lanes {
            let found = step.rows.len();
            rows += found;
            self.cursors[usize::from(lane.number().unsigned_abs())] = step.after.clone();
            let messages: Vec<Outgoing> = step
                .rows
                .into_iter()
                .filter_map(|row| self.route(lane, row))
                .collect();
            // An idle log moves the snapshot at every poll; storing that would be a write per poll, and tell nothing.
            if found > 0 {
                self.window.push(lane, messages, step.after);
            }
        }
        if rows > 0 {
            pass(Failpoint::AfterRead);
        }
        self.store_what_is_done();
        self.read_at = Instant::now() + self.pace.after_read(rows);
    }

    /// Where a row goes: none if it is parked, another stream's, or nobody's.
    fn route(&mut self, lane: Lane, row: LogRow) -> Option<Outgoing> {
        if self.skip.contains(&row.seq) {
            return None;
        }
        let slot = row.slot;
        let mut message = row.into_message();
        match self.routing.way(&message.topic) {
            Way::Publish(route) => {
                message.source = Some(self.settings.source.clone());
                Some(Outgoing {
                    route,
                    message,
                    replay: None,
                })
            }
            Way::Elsewhere => None,
            Way::Unrouted => {
                self.note(Unrouted {
                    slot,
                    lane,
                    topic: message.topic,
                });
                None
            }
        }
    }

    fn note(&mut self, unrouted: Unrouted) {
        self.metrics.unrouted(1);
        if !self.notes.contains(&unrouted) {
            self.notes.push(unrouted);
        }
    }
}
