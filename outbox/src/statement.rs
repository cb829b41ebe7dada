//! The insert that enqueues, as text and typed parameters, so that any driver can run it. Pure: no I/O.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fmt;

use onceward_core::wire::CONTENT_TYPE;
use onceward_core::{Entry, MessageId};
use sqlx::SqlStr;
use uuid::Uuid;

use crate::EnqueueError;

/// Neither returning nor on conflict: the writer's role may not read the log. Seq follows the order of the arrays,
/// since defaults are computed above the sort.
pub(crate) const INSERT: &str = "\
insert into {{schema}}.messages (lane, id, topic, key, type, headers, payload)
select m.lane, m.id, m.topic, m.key, m.type, m.headers::jsonb, m.payload
from unnest($1::smallint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[])
  with ordinality as m (lane, id, topic, key, type, headers, payload, position)
order by m.position";

/// The same for a single message, without the cost of arrays and sorting.
pub(crate) const INSERT_ONE: &str = "\
insert into {{schema}}.messages (lane, id, topic, key, type, headers, payload)
values ($1::smallint, $2::uuid, $3::text, $4::text, $5::text, $6::text::jsonb, $7::bytea)";

/// One insert for any number of messages, to run in the transaction that changes your data.
///
/// The parameters are the fields below from `lanes` to `payloads`, as `$1` to `$7`; all have the same length, one
/// element for each message. With tokio-postgres:
///
/// ```
/// # use onceward::{Message, Outbox};
/// let statement = Outbox::new().statement([Message::bytes("orders.created", "…").key(17)])?;
/// // client.execute(statement.sql(), &[
/// //     &statement.lanes, &statement.ids, &statement.topics, &statement.keys,
/// //     &statement.kinds, &statement.headers, &statement.payloads,
/// // ]).await?;
/// assert_eq!(statement.topics, ["orders.created"]);
/// # Ok::<(), onceward::EnqueueError>(())
/// ```
#[derive(Clone)]
pub struct Statement {
    sql: SqlStr,
    /// `$1`, `smallint[]`: 0 critical, 1 standard, 2 bulk.
    pub lanes: Vec<i16>,
    /// `$2`, `uuid[]`.
    pub ids: Vec<Uuid>,
    /// `$3`, `text[]`.
    pub topics: Vec<String>,
    /// `$4`, `text[]`, with null for messages without a key.
    pub keys: Vec<Option<String>>,
    /// `$5`, `text[]`: the types.
    pub kinds: Vec<String>,
    /// `$6`, `text[]`: JSON objects.
    pub headers: Vec<String>,
    /// `$7`, `bytea[]`.
    pub payloads: Vec<Vec<u8>>,
}

impl Statement {
    /// The text, with the parameters `$1` to `$7`. It is the same for any number of messages.
    #[must_use]
    pub fn sql(&self) -> &str {
        self.sql.as_str()
    }

    /// How many messages it writes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether it writes none; it need not be run then.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Lays out valid messages in columns.
    pub(crate) fn new(sql: SqlStr, entries: Vec<Entry>) -> Result<Self, EnqueueError> {
        let mut statement = Self {
            sql,
            lanes: Vec::with_capacity(entries.len()),
            ids: Vec::with_capacity(entries.len()),
            topics: Vec::with_capacity(entries.len()),
            keys: Vec::with_capacity(entries.len()),
            kinds: Vec::with_capacity(entries.len()),
            headers: Vec::with_capacity(entries.len()),
            payloads: Vec::with_capacity(entries.len()),
        };
        let mut seen = HashSet::with_capacity(entries.len());
        for entry in entries {
            let row = Row::from(entry);
            if !seen.insert(row.id) {
                return Err(EnqueueError::DuplicateId(row.id));
            }
            statement.lanes.push(row.lane);
            statement.ids.push(row.id);
            statement.topics.push(row.topic);
            statement.keys.push(row.key);
            statement.kinds.push(row.kind);
            statement.headers.push(row.headers);
            statement.payloads.push(row.payload);
        }
        Ok(statement)
    }
}

impl fmt::Debug for Statement {
    /// Shows neither payloads nor keys nor headers: they may be personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("ids", &self.ids)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

/// A message as the log stores it.
pub(crate) struct Row {
    pub(crate) lane: i16,
    pub(crate) id: Uuid,
    pub(crate) topic: String,
    pub(crate) key: Option<String>,
    pub(crate) kind: String,
    pub(crate) headers: String,
    pub(crate) payload: Vec<u8>,
}

impl From<Entry> for Row {
    fn from(entry: Entry) -> Self {
        let message = entry.message;
        let mut headers: BTreeMap<&str, &str> = message.headers.iter().collect();
        if let Some(content_type) = &message.content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        Self {
            lane: entry.lane.number(),
            id: uuid_of(&message.id),
            topic: message.topic.as_str().to_owned(),
            key: message.key.as_ref().map(|key| key.as_str().to_owned()),
            kind: message.kind.as_str().to_owned(),
            headers: serde_json::json!(headers).to_string(),
            payload: message.payload.into(),
        }
    }
}

/// A draft takes its id as a uuid, so a foreign id cannot come here; if it did, it would get one of its own.
fn uuid_of(id: &MessageId) -> Uuid {
    match id {
        MessageId::Uuid(id) | MessageId::Position(id) => *id,
        MessageId::Foreign(text) => Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use onceward_core::{Draft, MAX_PAYLOAD, Message};

    use super::*;

    fn statement(drafts: Vec<Draft>) -> Result<Statement, EnqueueError> {
        let entries = drafts
            .into_iter()
            .map(|draft| draft.finish(MAX_PAYLOAD).unwrap())
            .collect();
        Statement::new(SqlStr::from_static("insert"), entries)
    }

    #[test]
    fn messages_become_columns_in_their_order() {
        let one = Message::bytes("a", "x").key("k").header("tenant", "acme");
        let two = Message::json("b", &1).unwrap().kind("created");

        let statement = statement(vec![one, two]).unwrap();

        assert_eq!(statement.len(), 2);
        assert_eq!(statement.topics, ["a", "b"]);
        assert_eq!(statement.kinds, ["a", "created"]);
        assert_eq!(statement.keys, [Some("k".to_owned()), None]);
        assert_eq!(
            statement.headers,
            [
                r#"{"tenant":"acme"}"#,
                r#"{"content-type":"application/json"}"#
            ]
        );
        assert_eq!(statement.payloads, [b"x".to_vec(), b"1".to_vec()]);
    }

    #[test]
    fn an_id_given_twice_is_refused() {
        let id = Uuid::now_v7();
        let draft = || Message::bytes("a", "x").id(id);

        let error = statement(vec![draft(), Message::bytes("a", "y"), draft()]).unwrap_err();

        assert!(matches!(error, EnqueueError::DuplicateId(doubled) if doubled == id));
    }

    #[test]
    fn debug_shows_neither_keys_nor_payloads() {
        let shown = format!(
            "{:?}",
            statement(vec![Message::bytes("a", "secret").key("person")]).unwrap()
        );

        assert!(!shown.contains("secret") && !shown.contains("person"));
    }
}
