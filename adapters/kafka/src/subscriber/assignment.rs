//! One partition while this member owns it: what was delivered, what is settled, what is committed. Pure.

use std::time::SystemTime;

use onceward_core::{Partition, Prefix, Ticket};

use super::resume::{Resume, Stand};

/// A partition's place in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) number: i32,
}

impl Place {
    pub(super) fn partition(&self) -> Partition {
        Partition::new(&format!("{}/{}", self.topic, self.number))
    }
}

/// One delivery.
#[derive(Debug, Clone, Copy)]
struct Delivered {
    /// The position after it.
    after: i64,
    sent_at: Option<SystemTime>,
}

/// One partition while it is ours.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) place: Place,
    pub(super) partition: Partition,
    pub(super) paused: bool,
    /// It is being given back: nothing new of it is delivered.
    pub(super) leaving: bool,
    prefix: Prefix<Delivered>,
    next: Option<i64>,
    settled: Option<i64>,
    committed: Option<i64>,
}

impl Assignment {
    pub(super) fn new(place: Place) -> Self {
        Self {
            partition: place.partition(),
            place,
            paused: false,
            leaving: false,
            prefix: Prefix::new(),
            next: None,
            settled: None,
            committed: None,
        }
    }

    /// Takes a record, unless it was delivered already.
    pub(super) fn deliver(&mut self, offset: i64, sent_at: Option<SystemTime>) -> Option<Ticket> {
        if self.next.is_some_and(|next| offset < next) {
            return None;
        }
        let after = offset + 1;
        self.next = Some(after);
        Some(self.prefix.take(Delivered { after, sent_at }))
    }

    /// Notes that a delivery is settled.
    pub(super) fn ack(&mut self, ticket: Ticket) {
        self.prefix.finish(ticket);
        if let Some(last) = self.prefix.advance() {
            self.settled = Some(last.after);
        }
    }

    /// The position to commit, if it differs from what is committed.
    pub(super) fn to_commit(&self) -> Option<i64> {
        self.settled
            .filter(|settled| self.committed != Some(*settled))
    }

    pub(super) fn committed(&mut self, position: i64) {
        self.committed = Some(position);
    }

    /// The next position expected, once there is one.
    pub(super) fn next(&self) -> Option<i64> {
        self.next
    }

    /// Is read from where somebody stands. Gives that position.
    pub(super) fn stand(&mut self, stand: Stand) -> i64 {
        match stand {
            Stand::At(at) => {
                self.committed(at);
                at
            }
            Stand::Begins(at) => {
                self.resume(Resume::Begin(at));
                at
            }
        }
    }

    /// Reads on elsewhere.
    pub(super) fn resume(&mut self, resume: Resume) {
        self.next = Some(resume.at());
        if let Resume::Begin(at) = resume {
            // Committed at once, so that the group has a position from which a later jump is seen.
            self.settled = Some(at);
        }
    }

    /// Everything before this is settled, as far as this member knows.
    pub(super) fn position(&self) -> Option<i64> {
        let behind = self.prefix.len();
        match self.settled.or(self.committed) {
            Some(position) => Some(position),
            None if behind == 0 => self.next,
            None => self.prefix.oldest().map(|oldest| oldest.after - 1),
        }
    }

    /// When the oldest delivery that is not settled was sent.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        self.prefix.oldest()?.sent_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment() -> Assignment {
        Assignment::new(Place {
            topic: "orders".to_owned(),
            number: 3,
        })
    }

    #[test]
    fn a_position_is_committed_only_past_what_is_settled_without_a_gap() {
        let mut assignment = assignment();
        let tickets = [5, 6, 9].map(|offset| assignment.deliver(offset, None).unwrap());

        assignment.ack(tickets[1]);
        assert_eq!(assignment.to_commit(), None);
        assignment.ack(tickets[0]);
        assert_eq!(assignment.to_commit(), Some(7));
        assignment.ack(tickets[2]);
        assert_eq!(assignment.to_commit(), Some(10));

        assignment.committed(10);
        assert_eq!(assignment.to_commit(), None);
    }

    #[test]
    fn a_record_is_delivered_once() {
        let mut assignment = assignment();

        assert!(assignment.deliver(5, None).is_some());
        assert!(assignment.deliver(5, None).is_none());
        assert!(assignment.deliver(7, None).is_some());
    }

    #[test]
    fn a_group_that_begins_commits_where_it_began() {
        let mut assignment = assignment();

        assignment.resume(Resume::Begin(20));

        assert_eq!(assignment.to_commit(), Some(20));
        assert_eq!(assignment.position(), Some(20));
    }

    #[test]
    fn after_a_jump_the_old_position_stays_until_something_new_is_settled() {
        let mut assignment = assignment();
        assignment.committed(3);

        assignment.resume(Resume::Jump { from: 3, to: 10 });
        assert_eq!(assignment.to_commit(), None);
        let ticket = assignment.deliver(10, None).unwrap();
        assignment.ack(ticket);

        assert_eq!(assignment.to_commit(), Some(11));
    }

    #[test]
    fn a_partition_is_named_by_topic_and_number() {
        assert_eq!(assignment().partition.as_str(), "orders/3");
    }
}
