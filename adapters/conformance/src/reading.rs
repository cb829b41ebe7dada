//! Reading as a consumer does, and what was seen.

use std::time::Duration;

use onceward_core::{Acker, Arrival, Delivery, Partition, SubscribeErrorKind, Subscriber};

use crate::journey::{ByKey, PATIENCE};

/// What a member has seen.
#[derive(Debug)]
pub(crate) struct Seen<T> {
    pub(crate) deliveries: Vec<Delivery<T>>,
    pub(crate) assigned: Vec<Partition>,
    pub(crate) jumps: Vec<(u64, u64)>,
}

impl<T: Clone> Seen<T> {
    pub(crate) fn new() -> Self {
        Self {
            deliveries: Vec::new(),
            assigned: Vec::new(),
            jumps: Vec::new(),
        }
    }

    pub(crate) fn take(&mut self, arrival: Arrival<T>) {
        match arrival {
            Arrival::Delivery(delivery) => self.deliveries.push(delivery),
            Arrival::Assigned(partition) => self.assigned.push(partition),
            Arrival::Jumped { from, to, .. } => self.jumps.push((from, to)),
            // Nothing is in work here, so the partition is given back at once.
            Arrival::Revoking { release, .. } => drop(release),
            Arrival::Lost(_) => {}
        }
    }

    /// Ids in the order in which each first came, by key.
    pub(crate) fn first_arrivals(&self) -> ByKey {
        let mut ids = ByKey::new();
        for delivery in &self.deliveries {
            let (key, id) = key_and_id(delivery);
            let ids = ids.entry(key).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// Ids in the order in which they came, copies left out.
    pub(crate) fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = Vec::new();
        for delivery in &self.deliveries {
            let (_, id) = key_and_id(delivery);
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// How to ack every delivery of these ids.
    pub(crate) fn tokens(&self, ids: &[String]) -> Vec<T> {
        let wanted = |delivery: &&Delivery<T>| ids.contains(&key_and_id(delivery).1);
        let deliveries = self.deliveries.iter().filter(wanted);
        deliveries.map(|delivery| delivery.token.clone()).collect()
    }
}

fn key_and_id<T>(delivery: &Delivery<T>) -> (String, String) {
    match &delivery.message {
        Ok(message) => (
            message
                .key
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            message.id.to_string(),
        ),
        Err(undecodable) => (String::new(), undecodable.id.to_string()),
    }
}

/// Reads until `enough` says so.
///
/// Panics with `what` when that takes too long. While the broker is away it tries again.
pub(crate) async fn read_until<S: Subscriber>(
    member: &mut S,
    seen: &mut Seen<S::Token>,
    what: &str,
    enough: impl Fn(&Seen<S::Token>) -> bool,
) {
    read_with(50, member, seen, what, enough).await;
}

/// Reads without room until the member owns something.
pub(crate) async fn hear_of_a_partition<S: Subscriber>(member: &mut S, seen: &mut Seen<S::Token>) {
    let what = "a partition";
    read_with(0, member, seen, what, |seen| !seen.assigned.is_empty()).await;
}

async fn read_with<S: Subscriber>(
    room: usize,
    member: &mut S,
    seen: &mut Seen<S::Token>,
    what: &str,
    enough: impl Fn(&Seen<S::Token>) -> bool,
) {
    let reading = async {
        while !enough(seen) {
            match member.next(room).await {
                Ok(arrivals) => arrivals.into_iter().for_each(|arrival| seen.take(arrival)),
                Err(error) => {
                    assert_eq!(error.kind, SubscribeErrorKind::Unavailable, "{error:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    };
    if tokio::time::timeout(PATIENCE, reading).await.is_err() {
        panic!(
            "waited {PATIENCE:?} in vain for {what}; came: {:?}",
            seen.first_arrivals()
        );
    }
}

/// Reads until that many different messages have come.
pub(crate) async fn read<S: Subscriber>(member: &mut S, count: usize) -> Seen<S::Token> {
    let mut seen = Seen::new();
    let what = format!("{count} messages");
    read_until(member, &mut seen, &what, |seen| seen.ids().len() >= count).await;
    seen
}

/// Reads until that many different messages have come, acking each, as some brokers give out no more before.
pub(crate) async fn read_and_ack<S: Subscriber>(member: &mut S, count: usize) -> Seen<S::Token> {
    let mut seen = Seen::new();
    let what = format!("{count} messages");
    read_and_ack_until(member, &mut seen, &what, |seen| seen.ids().len() >= count).await;
    seen
}

/// As [`read_until`], acking whatever comes.
pub(crate) async fn read_and_ack_until<S: Subscriber>(
    member: &mut S,
    seen: &mut Seen<S::Token>,
    what: &str,
    enough: impl Fn(&Seen<S::Token>) -> bool,
) {
    let acker = member.acker();
    while !enough(seen) {
        let before = seen.deliveries.len();
        read_until(member, seen, what, |seen| {
            seen.deliveries.len() > before || enough(seen)
        })
        .await;
        let fresh = seen.deliveries[before..].iter();
        ack(
            &acker,
            fresh.map(|delivery| delivery.token.clone()).collect(),
        )
        .await;
    }
}

/// Asserts that nothing is delivered for a while, to a member with so much room. Notices may come.
pub(crate) async fn assert_nothing_comes<S: Subscriber>(
    member: &mut S,
    room: usize,
    while_: Duration,
) {
    let mut seen = Seen::new();
    let reading = async {
        loop {
            if let Ok(arrivals) = member.next(room).await {
                arrivals.into_iter().for_each(|arrival| seen.take(arrival));
            }
        }
    };
    // It ends by its time only.
    tokio::time::timeout(while_, reading).await.unwrap_or(());
    assert!(
        seen.deliveries.is_empty(),
        "came: {:?}",
        seen.first_arrivals()
    );
}

/// Acks, trying again while the broker is away.
pub(crate) async fn ack<A: Acker>(acker: &A, tokens: Vec<A::Token>) {
    let acking = async {
        while acker.ack(tokens.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, acking)
        .await
        .expect("an ack is taken");
}
