//! Decides what becomes of a call. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Value, json};

/// A call of the API on its way to the server.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its action, such as `SendMessageBatch`.
    pub action: String,
    /// The name of the queue that it is about; empty if of none.
    pub queue: String,
    /// Its parameters.
    pub body: Value,
}

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// It reaches the server.
    Pass,
    /// It reaches the server, and the connection breaks before its answer comes back.
    LoseAnswer,
    /// It does not reach the server and is refused as a whole.
    Refuse {
        /// The HTTP status.
        status: u16,
        /// The error's code, such as `com.amazonaws.sqs#QueueDoesNotExist`.
        code: String,
    },
    /// Entries of a batch do not reach the server and are refused, each by itself; the others pass.
    FailEntries(Vec<Failure>),
}

/// An entry of a batch that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The entry's id in the call.
    pub id: String,
    /// The error's code, such as `InternalError`.
    pub code: &'static str,
    /// What is said about it.
    pub message: &'static str,
    /// Whether the sender is to blame.
    pub sender_fault: bool,
}

impl Act {
    /// Refuses entries of a batch with an error of the server's own, as SQS does now and then.
    #[must_use]
    pub fn fail(ids: impl IntoIterator<Item = String>) -> Self {
        let failure = |id| Failure {
            id,
            code: "InternalError",
            message: "We encountered an internal error. Please try again.",
            sender_fault: false,
        };
        Self::FailEntries(ids.into_iter().map(failure).collect())
    }

    /// Refuses a call.
    #[must_use]
    pub fn refuse(status: u16, code: &str) -> Self {
        let code = code.to_owned();
        Self::Refuse { status, code }
    }
}

impl Call {
    /// The entries of a batch; none of another call.
    #[must_use]
    pub fn entries(&self) -> &[Value] {
        self.body["Entries"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The ids of a batch's entries.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        let ids = self.entries().iter().map(|entry| entry["Id"].as_str());
        ids.map(|id| id.unwrap_or_default().to_owned()).collect()
    }

    pub(super) fn sends(&self) -> bool {
        self.action == "SendMessageBatch"
    }
}

type Script = Box<dyn FnMut(&Call) -> Act + Send>;

#[derive(Default)]
pub(super) struct Rules {
    script: Option<Script>,
    limits: BTreeMap<String, u64>,
    throttled: BTreeSet<String>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("limits", &self.limits)
            .field("throttled", &self.throttled)
            .finish_non_exhaustive()
    }
}

impl Rules {
    pub(super) fn limit(&mut self, queue: &str, bytes: u64) {
        self.limits.insert(queue.to_owned(), bytes);
    }

    pub(super) fn lift_limit(&mut self, queue: &str) {
        self.limits.remove(queue);
    }

    pub(super) fn throttle(&mut self, queue: &str, throttled: bool) {
        if throttled {
            self.throttled.insert(queue.to_owned());
        } else {
            self.throttled.remove(queue);
        }
    }

    pub(super) fn script(&mut self, script: Script) {
        self.script = Some(script);
    }

    pub(super) fn act(&mut self, call: &Call) -> Act {
        if let Some(script) = &mut self.script {
            let act = script(call);
            if act != Act::Pass {
                return act;
            }
        }
        if call.sends() && self.throttled.contains(&call.queue) {
            return Act::refuse(400, "com.amazonaws.sqs#RequestThrottled");
        }
        let limit = self.limits.get(&call.queue).filter(|_| call.sends());
        let Some(limit) = limit else {
            return Act::Pass;
        };
        let too_large = call.entries().iter().filter(|entry| size(entry) > *limit);
        let failures: Vec<Failure> = too_large
            .map(|entry| Failure {
                id: entry["Id"].as_str().unwrap_or_default().to_owned(),
                code: "InvalidParameterValue",
                message: "One or more parameters are invalid. Reason: Message must be shorter than the queue's limit.",
                sender_fault: true,
            })
            .collect();
        match failures.len() {
            0 => Act::Pass,
            _ => Act::FailEntries(failures),
        }
    }

    /// What the server says, with what the rules add: the server does not know of our limits.
    pub(super) fn amend(&self, call: &Call, answer: &mut Value) {
        if let Some(limit) = self.limits.get(&call.queue)
            && call.action == "GetQueueAttributes"
            && answer["Attributes"].is_object()
        {
            answer["Attributes"]["MaximumMessageSize"] = json!(limit.to_string());
        }
    }
}

/// Bytes of an entry as SQS counts them: its body, and names, types and values of its attributes.
fn size(entry: &Value) -> u64 {
    let length = |value: &Value| value.as_str().map_or(0, str::len);
    let attributes = entry["MessageAttributes"].as_object().into_iter().flatten();
    let attributes: usize = attributes
        .map(|(name, value)| {
            name.len() + length(&value["DataType"]) + length(&value["StringValue"])
        })
        .sum();
    (length(&entry["MessageBody"]) + attributes) as u64
}
