//! Messages for the cases, and what became of them, in terms of ids.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use onceward_core::{Batch, MAX_PAYLOAD, Message, Order, Outgoing, Receipts, Route};

use crate::Record;

/// How long anything may take before a case counts it as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Message number `n` of a key, with the number as its payload.
pub(crate) fn message(route: &Route, key: Option<&str>, n: u32) -> Outgoing {
    with_payload(route, key, n.to_string().into_bytes())
}

/// A message of that payload.
pub(crate) fn with_payload(route: &Route, key: Option<&str>, payload: Vec<u8>) -> Outgoing {
    let mut draft = Message::bytes(route.as_str(), payload);
    if let Some(key) = key {
        draft = draft.key(key);
    }
    let entry = draft.finish(2 * MAX_PAYLOAD);
    Outgoing {
        route: route.clone(),
        message: entry.expect("the suite's own messages are valid").message,
        replay: None,
    }
}

/// A batch of these.
pub(crate) fn batch(messages: &[Outgoing]) -> Arc<Batch> {
    Arc::new(Batch {
        messages: messages.to_vec(),
    })
}

/// The receipts, or a failed test when they never come.
pub(crate) async fn finish(pending: impl Future<Output = Receipts>) -> Receipts {
    tokio::time::timeout(PATIENCE, pending)
        .await
        .expect("an offer is answered by its deadline")
}

pub(crate) fn assert_all_confirmed(receipts: &Receipts) {
    assert!(receipts.all_confirmed(), "not all confirmed: {receipts:?}");
}

/// Ids in order, by key.
pub(crate) type ByKey = BTreeMap<String, Vec<String>>;

/// What was offered.
pub(crate) fn ids_by_key(messages: &[Outgoing]) -> ByKey {
    let mut ids = ByKey::new();
    for outgoing in messages {
        let key = outgoing.message.key.as_ref().map_or("", |key| key.as_str());
        ids.entry(key.to_owned())
            .or_default()
            .push(outgoing.message.id.to_string());
    }
    ids
}

/// What the broker stores.
pub(crate) fn stored_ids_by_key(stored: &[Record]) -> ByKey {
    let mut ids = ByKey::new();
    for record in stored {
        let key = record.text("partitionkey").unwrap_or_default();
        let id = record.text("id").unwrap_or_default();
        ids.entry(key).or_default().push(id);
    }
    ids
}

impl Record {
    /// The value of a CloudEvents attribute, in either style of its name.
    pub(crate) fn text(&self, attribute: &str) -> Option<String> {
        let names = [format!("ce-{attribute}"), format!("ce_{attribute}")];
        self.headers
            .iter()
            .find(|(name, _)| names.contains(name))
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }
}

/// A payload of `n` bytes that no compression makes small.
pub(crate) fn noise(n: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(n + 8);
    while bytes.len() < n {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(n);
    bytes
}

/// A text of `n` bytes that no compression makes small.
pub(crate) fn text(n: usize) -> Vec<u8> {
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let noise = noise(n).into_iter();
    noise
        .map(|byte| letters[usize::from(byte) % letters.len()])
        .collect()
}

/// Asserts that what the broker stores of each key, copies left out, is a prefix of what one session was offered; without
/// order, that all of it was offered.
pub(crate) fn assert_prefixes(order: Order, stored: &[Record], offered: &[Outgoing]) {
    let offered = ids_by_key(offered);
    for (key, ids) in first_arrivals(stored) {
        let expected = offered.get(&key).cloned().unwrap_or_default();
        let fits = match order {
            Order::PerKey => expected.starts_with(&ids),
            Order::None => ids.iter().all(|id| expected.contains(id)),
        };
        assert!(
            fits,
            "key {key}: the broker stores {ids:?}, no prefix of {expected:?}"
        );
    }
}

/// Asserts that the broker stores just that, copies left out; in order where it keeps order.
pub(crate) fn assert_stores(order: Order, stored: &[Record], expected: &ByKey) {
    let stored = first_arrivals(stored);
    assert_eq!(in_any(order, stored), in_any(order, expected.clone()));
}

/// Ids as they are where the broker keeps order, else sorted.
pub(crate) fn in_any(order: Order, mut ids: ByKey) -> ByKey {
    for ids in ids.values_mut().filter(|_| order == Order::None) {
        ids.sort();
    }
    ids
}

/// Asserts that of `ids` at least those came that are not `acked`, in their order; and none of others.
///
/// Brokers with positions give out an acked message again that lies behind an unacked one, others do not.
pub(crate) fn assert_unacked_came(order: Order, came: &[String], ids: &[String], acked: &[String]) {
    let place = |id: &String| ids.iter().position(|known| known == id);
    let places: Vec<_> = came.iter().map(place).collect();
    assert!(
        places.iter().all(Option::is_some),
        "{came:?} holds others than {ids:?}"
    );
    let in_order = order == Order::None || places.is_sorted();
    assert!(in_order, "{came:?} is not in the order of {ids:?}");
    let lost = ids
        .iter()
        .find(|id| !acked.contains(id) && !came.contains(id));
    assert_eq!(lost, None, "lost; came: {came:?} of {ids:?}");
}

/// What the broker stores, copies left out.
pub(crate) fn first_arrivals(stored: &[Record]) -> ByKey {
    let mut first = stored_ids_by_key(stored);
    for ids in first.values_mut() {
        let mut seen = std::collections::BTreeSet::new();
        ids.retain(|id| seen.insert(id.clone()));
    }
    first
}

/// The messages whose ids are not in `without`, by key.
pub(crate) fn all_but(
    messages: &[Outgoing],
    without: &std::collections::BTreeSet<String>,
) -> ByKey {
    let left: Vec<Outgoing> = messages
        .iter()
        .filter(|outgoing| !without.contains(&outgoing.message.id.to_string()))
        .cloned()
        .collect();
    ids_by_key(&left)
}
