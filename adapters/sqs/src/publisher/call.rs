//! One call that sends, and what its answer says of each message. HTTP 200 alone confirms nothing.

use std::collections::HashMap;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use onceward_core::{ErrorKind, Outcome, PublishError};

use super::lanes::{Ready, Sent};
use crate::errors::{self, Trouble};
use crate::faults::failed_entries_are_ignored;
use crate::headers::Entry;

/// The entries of a call, each with its place in it as its id.
pub(super) fn entries(
    call: Vec<Ready>,
) -> Result<(Vec<Sent>, Vec<SendMessageBatchRequestEntry>), PublishError> {
    let mut sent = Vec::with_capacity(call.len());
    let mut entries = Vec::with_capacity(call.len());
    for (place, ready) in call.into_iter().enumerate() {
        let Entry { body, attributes } = ready.entry;
        let entry = SendMessageBatchRequestEntry::builder()
            .id(place.to_string())
            .message_body(body)
            .set_message_attributes(Some(Entry::attribute_values(attributes)?))
            .set_message_group_id(ready.group)
            .set_message_deduplication_id(ready.dedupe)
            .build();
        entries.push(entry.map_err(|error| {
            let what = "an entry cannot be built";
            PublishError::with_source(ErrorKind::Unavailable, what, error)
        })?);
        sent.push(ready.sent);
    }
    Ok((sent, entries))
}

pub(super) async fn send(
    client: Client,
    url: String,
    entries: Vec<SendMessageBatchRequestEntry>,
) -> Result<SendMessageBatchOutput, Trouble> {
    let sent = client
        .send_message_batch()
        .queue_url(url)
        .set_entries(Some(entries))
        .send();
    sent.await.map_err(errors::trouble)
}

/// What became of each of `count` messages of a call that was answered. Each was judged by itself.
pub(super) fn outcomes(count: usize, answer: &SendMessageBatchOutput) -> Vec<Outcome> {
    let failed: HashMap<&str, _> = answer
        .failed
        .iter()
        .map(|one| (one.id.as_str(), one))
        .collect();
    let confirmed: HashMap<&str, _> = answer
        .successful
        .iter()
        .map(|one| (one.id.as_str(), one))
        .collect();
    let outcome = |place: usize| {
        let id = place.to_string();
        match (failed.get(id.as_str()), confirmed.get(id.as_str())) {
            (Some(_), _) if failed_entries_are_ignored() => Outcome::Confirmed,
            (Some(refused), _) => Outcome::Failed(errors::entry(refused)),
            (None, Some(_)) => Outcome::Confirmed,
            // An answer that does not speak of a message says nothing about it.
            (None, None) => Outcome::Unconfirmed,
        }
    };
    (0..count).map(outcome).collect()
}

/// What became of each of `count` messages of a call that was refused as a whole.
pub(super) fn refused(count: usize, trouble: &Trouble) -> Vec<Outcome> {
    let outcome = |_| match count {
        1 => Outcome::Failed(trouble.to_publish_error()),
        _ => Outcome::Suspect(trouble.to_publish_error()),
    };
    (0..count).map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::types::{BatchResultErrorEntry, SendMessageBatchResultEntry};

    use super::*;

    fn confirmed(id: &str) -> SendMessageBatchResultEntry {
        SendMessageBatchResultEntry::builder()
            .id(id)
            .message_id("m")
            .md5_of_message_body("x")
            .build()
            .unwrap()
    }

    fn failed(id: &str, code: &str) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder()
            .id(id)
            .code(code)
            .sender_fault(true)
            .build()
            .unwrap()
    }

    #[test]
    fn each_message_of_an_answered_call_has_an_outcome_of_its_own() {
        let answer = SendMessageBatchOutput::builder()
            .successful(confirmed("2"))
            .failed(failed("0", "InvalidMessageContents"))
            .set_failed(Some(vec![failed("0", "InvalidMessageContents")]))
            .build()
            .unwrap();

        let outcomes = outcomes(3, &answer);

        assert!(
            matches!(&outcomes[0], Outcome::Failed(error) if error.kind == ErrorKind::Rejected)
        );
        assert!(matches!(outcomes[1], Outcome::Unconfirmed));
        assert!(matches!(outcomes[2], Outcome::Confirmed));
    }
}
