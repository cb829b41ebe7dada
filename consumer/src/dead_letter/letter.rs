//! A dead letter as it is written.

use std::borrow::Cow;

use bytes::Bytes;
use onceward_core::{Message, MessageId, Origin, Undecodable};
use serde_json::{Map, Value, json};
use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::types::Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::ConsumerName;
use crate::history::History;
use crate::plan::DeadReason;
use crate::sql::Statements;
use crate::trouble::clean;

/// What was delivered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    Message(&'a Message),
    Undecodable(&'a Undecodable),
}

/// A dead letter.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) content: Content<'a>,
    pub(crate) origin: &'a Origin,
    pub(crate) reason: DeadReason,
    pub(crate) error: String,
    pub(crate) history: &'a History,
}

impl Letter<'_> {
    /// The statement that writes it.
    pub(crate) fn insert<'q>(
        &'q self,
        statements: &Statements,
        consumer: &'q ConsumerName,
        mark: Uuid,
    ) -> Query<'q, Postgres, PgArguments> {
        let parts = self.parts();
        sqlx::query(statements.letter())
            .bind(consumer.as_str())
            .bind(mark)
            .bind(parts.original_id)
            .bind(parts.topic)
            .bind(parts.key)
            .bind(parts.kind)
            .bind(Json(parts.headers))
            .bind(&parts.payload[..])
            .bind(parts.source)
            .bind(parts.created_at)
            .bind(Json(parts.origin))
            .bind(self.reason.code())
            .bind(clean(&self.error))
            .bind(Json(self.history.attempts()))
            .bind(self.history.count())
            .bind(self.history.first_failed_at())
    }

    fn parts(&self) -> Parts {
        match self.content {
            Content::Message(message) => of_message(message, self.origin),
            Content::Undecodable(delivery) => of_undecodable(delivery, self.origin),
        }
    }
}

/// The columns that differ between what could be read and what could not.
struct Parts {
    original_id: Option<String>,
    topic: String,
    key: Option<String>,
    kind: Option<String>,
    headers: Map<String, Value>,
    payload: Bytes,
    source: Option<String>,
    created_at: Option<OffsetDateTime>,
    origin: Value,
}

fn of_message(message: &Message, origin: &Origin) -> Parts {
    let mut headers = headers(message.headers.iter());
    if let Some(content_type) = &message.content_type {
        headers.insert("content-type".to_owned(), clean(content_type).into());
    }
    Parts {
        original_id: original_id(&message.id),
        topic: clean(message.topic.as_str()),
        key: message.key.as_ref().map(|key| clean(key.as_str())),
        kind: Some(clean(message.kind.as_str())),
        headers,
        payload: message.payload.clone(),
        source: message.source.as_ref().map(|source| clean(source.as_str())),
        created_at: message.time,
        origin: origin_of(origin, message.seq),
    }
}

fn of_undecodable(delivery: &Undecodable, origin: &Origin) -> Parts {
    let key = delivery.key.as_deref().map(String::from_utf8_lossy);
    let all = delivery
        .headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()));
    Parts {
        original_id: original_id(&delivery.id),
        topic: clean(delivery.topic.as_str()),
        key: key.map(|key: Cow<'_, str>| clean(&key)),
        kind: None,
        headers: headers(all),
        payload: delivery.payload.clone(),
        source: delivery
            .source_name
            .as_ref()
            .map(|source| clean(source.as_str())),
        created_at: None,
        origin: origin_of(origin, None),
    }
}

/// The id as it came; none: it came without.
fn original_id(id: &MessageId) -> Option<String> {
    match id {
        MessageId::Uuid(id) => Some(id.to_string()),
        MessageId::Foreign(text) => Some(clean(text)),
        MessageId::Position(_) => None,
    }
}

fn headers<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Map<String, Value> {
    headers
        .map(|(name, value)| (clean(name), Value::String(clean(value))))
        .collect()
}

fn origin_of(origin: &Origin, seq: Option<i64>) -> Value {
    let sent_at = origin
        .sent_at
        .and_then(|at| OffsetDateTime::from(at).format(&Rfc3339).ok());
    json!({
        "broker": origin.broker,
        "partition": clean(origin.partition.as_str()),
        "position": origin.position,
        "redelivered": origin.redelivered,
        "sent_at": sent_at,
        "seq": seq,
    })
}
