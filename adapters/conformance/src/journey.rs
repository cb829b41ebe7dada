//! Messages for the cases, and what became of them, in terms of ids.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use onceward_core::{Batch, MAX_PAYLOAD, Message, Outgoing, Receipts, Route};

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

/// Asserts that what the broker stores of each key, copies left out, is a prefix of what one session was offered.
pub(crate) fn assert_prefixes(stored: &[Record], offered: &[Outgoing]) {
    let offered = ids_by_key(offered);
    for (key, ids) in first_arrivals(stored) {
        let expected = offered.get(&key).cloned().unwrap_or_default();
        assert!(
            expected.starts_with(&ids),
            "key {key}: the broker stores {ids:?}, no prefix of {expected:?}"
        );
    }
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
