//! What a stream tells about itself: to health checks, to metrics and to people.

use std::time::SystemTime;

use tokio::sync::watch;

/// How a stream stands in this relay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamStatus {
    /// The stream's name.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// Why nothing can be published now, if so.
    pub destination_paused: Option<Paused>,
    /// Routes that cannot be published to now. Those that are so for long have detours, and the stream goes on without them.
    pub paused_topics: Vec<Paused>,
    /// Messages read and not confirmed.
    pub in_flight: usize,
}

/// A stream's part in this relay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Role {
    /// Nothing is known yet: the database has not answered.
    #[default]
    Starting,
    /// Another relay publishes; this one takes over within the lease's ttl.
    Standby,
    /// This relay publishes.
    Holder,
    /// The database cannot be reached, and why.
    Failing(String),
}

/// Something that waits for its destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// The route; empty for the whole destination.
    pub route: String,
    /// The kind of refusal.
    pub kind: &'static str,
    /// What the destination said.
    pub what: String,
    /// Since when.
    pub since: SystemTime,
    /// How often it has refused.
    pub attempt: u32,
}

impl StreamStatus {
    /// This relay does not hold the stream any more: what only its holder knows is not known.
    fn let_go(&mut self) {
        self.destination_paused = None;
        self.paused_topics.clear();
        self.in_flight = 0;
        if self.role == Role::Holder {
            self.role = Role::Standby;
        }
    }
}

/// Where a stream puts its status.
#[derive(Debug, Clone)]
pub(crate) struct StatusHandle(watch::Sender<StreamStatus>);

impl StatusHandle {
    pub(crate) fn new(name: &str) -> (Self, watch::Receiver<StreamStatus>) {
        let (sender, receiver) = watch::channel(StreamStatus {
            name: name.to_owned(),
            ..StreamStatus::default()
        });
        (Self(sender), receiver)
    }

    /// The stream has been let go.
    pub(crate) fn let_go(&self) {
        self.update(StreamStatus::let_go);
    }

    /// Changes the status; whoever watches is told only if it differs.
    pub(crate) fn update(&self, change: impl FnOnce(&mut StreamStatus)) {
        self.0.send_if_modified(|status| {
            let before = status.clone();
            change(status);
            *status != before
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused(route: &str) -> Paused {
        Paused {
            route: route.to_owned(),
            kind: "unavailable",
            what: "no answer".to_owned(),
            since: SystemTime::UNIX_EPOCH,
            attempt: 1,
        }
    }

    #[test]
    fn a_relay_that_lost_its_lease_tells_nothing_that_only_the_holder_knows() {
        let (handle, seen) = StatusHandle::new("events");
        handle.update(|status| {
            status.role = Role::Holder;
            status.destination_paused = Some(paused(""));
            status.paused_topics = vec![paused("orders")];
            status.in_flight = 5;
        });

        handle.let_go();

        let standby = StreamStatus {
            name: "events".to_owned(),
            role: Role::Standby,
            ..StreamStatus::default()
        };
        assert_eq!(*seen.borrow(), standby);
    }
}
