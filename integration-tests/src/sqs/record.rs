//! Messages as a queue has them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Sqs;

/// Longer than any visibility timeout of a test.
const INVISIBLE_AT_MOST: Duration = Duration::from_secs(60);

/// A message as a queue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The queue's own id of it.
    pub id: String,
    /// Its group, in a FIFO queue.
    pub group: Option<String>,
    /// The body as it is in the queue.
    pub body: String,
    /// Names and values of its attributes. Values of type `Binary` are left out.
    pub attributes: BTreeMap<String, String>,
}

impl Stored {
    /// Reads an entry of a send, or a message of a receive.
    pub(super) fn new(id: &str, group: &Value, body: &Value, attributes: &Value) -> Self {
        let named = attributes.as_object().into_iter().flatten();
        let texts = named.filter_map(|(name, value)| {
            Some((name.clone(), value["StringValue"].as_str()?.to_owned()))
        });
        Self {
            id: id.to_owned(),
            group: group.as_str().map(str::to_owned),
            body: body.as_str().unwrap_or_default().to_owned(),
            attributes: texts.collect(),
        }
    }
}

pub(super) async fn drain(sqs: &Sqs, name: &str) -> Vec<Stored> {
    let url = sqs.queue_url(name).await;
    let mut stored = Vec::new();
    let mut progress = Instant::now();
    loop {
        let receive = json!({
            "QueueUrl": url, "MaxNumberOfMessages": 10, "VisibilityTimeout": 30,
            "AttributeNames": ["All"], "MessageAttributeNames": ["All"],
        });
        let answer = sqs.call("ReceiveMessage", receive).await;
        let messages = answer["Messages"].as_array().cloned().unwrap_or_default();
        if messages.is_empty() {
            if left(sqs, &url).await == 0 {
                return stored;
            }
            assert!(
                progress.elapsed() < INVISIBLE_AT_MOST,
                "queue {name} holds messages and gives none of them out"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        progress = Instant::now();
        let mut entries = Vec::new();
        for (n, message) in messages.iter().enumerate() {
            let group = &message["Attributes"]["MessageGroupId"];
            let id = message["MessageId"].as_str().unwrap_or_default();
            let attributes = &message["MessageAttributes"];
            stored.push(Stored::new(id, group, &message["Body"], attributes));
            entries.push(json!({ "Id": n.to_string(), "ReceiptHandle": message["ReceiptHandle"] }));
        }
        let delete = json!({ "QueueUrl": url, "Entries": entries });
        sqs.call("DeleteMessageBatch", delete).await;
    }
}

/// How many messages a queue has, invisible ones included.
async fn left(sqs: &Sqs, url: &str) -> u64 {
    let ask = json!({ "QueueUrl": url, "AttributeNames": ["All"] });
    let answer = sqs.call("GetQueueAttributes", ask).await;
    let count = |name: &str| -> u64 {
        let text = answer["Attributes"][name].as_str();
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    count("ApproximateNumberOfMessages")
        + count("ApproximateNumberOfMessagesNotVisible")
        + count("ApproximateNumberOfMessagesDelayed")
}
