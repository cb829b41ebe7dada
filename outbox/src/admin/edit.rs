//! Changes a parked message, within what enqueueing would take.

use std::collections::BTreeMap;

use onceward_core::{Headers, InvalidMessage, Key, Kind, Topic};

use super::LogAdmin;
use crate::log::LogError;
use crate::sql::render;

/// What to change of a parked message; what is none stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParkedEdit {
    /// What it is about.
    pub topic: Option<String>,
    /// Its key; `Some(None)`: none any more.
    pub key: Option<Option<String>>,
    /// Its type.
    pub kind: Option<String>,
    /// All of its headers.
    pub headers: Option<BTreeMap<String, String>>,
    /// The media type of the payload.
    pub content_type: Option<String>,
    /// The payload.
    pub payload: Option<Vec<u8>>,
}

impl ParkedEdit {
    /// Refuses what enqueueing would refuse, before anything is changed.
    ///
    /// # Errors
    /// The first part that is not valid.
    pub fn check(&self) -> Result<(), InvalidMessage> {
        self.topic.as_deref().map(Topic::try_from).transpose()?;
        self.kind.as_deref().map(Kind::try_from).transpose()?;
        if let Some(Some(key)) = &self.key {
            Key::try_from(key.as_str())?;
        }
        let mut checked = Headers::new();
        for (name, value) in self.headers.iter().flatten() {
            checked.insert(name, value)?;
        }
        if let Some(content_type) = &self.content_type {
            let printable = content_type.bytes().all(|b| (b' '..=b'~').contains(&b));
            if !(1..=255).contains(&content_type.len()) || !printable {
                return Err(InvalidMessage::ContentType(content_type.clone()));
            }
        }
        Ok(())
    }
}

/// Only while it waits for a person: what is due may be on its way.
const EDIT: &str = "
update {{schema}}.parked
set topic = coalesce($3, topic),
  key = case when $4 then $5 else key end,
  type = coalesce($6, type),
  headers = coalesce($7::jsonb, headers - 'content-type')
    || jsonb_strip_nulls(jsonb_build_object('content-type', coalesce($8::text, headers ->> 'content-type'))),
  payload = coalesce($9, payload),
  changed_at = clock_timestamp(),
  history = history || jsonb_build_array(jsonb_build_object('at', clock_timestamp(), 'what', 'edited', 'by', $10::text))
where stream = $1 and seq = $2 and state = 'parked'";

impl LogAdmin {
    /// Changes a message that waits for a person. Returns false if there is none: it may be due already. Call
    /// [`ParkedEdit::check`] first; `by` is who did it.
    ///
    /// # Errors
    /// That the database failed.
    ///
    /// # Cancel safety
    /// Dropped, the change may or may not have been made; the connection is of no more use.
    pub async fn edit_parked(
        &mut self,
        stream: &str,
        seq: i64,
        edit: &ParkedEdit,
        by: &str,
    ) -> Result<bool, LogError> {
        let sql = render(&self.schema, EDIT);
        let headers = edit.headers.as_ref().map(sqlx::types::Json);
        let done = self
            .session
            .call("editing a parked message", async |connection| {
                sqlx::query(sql)
                    .bind(stream)
                    .bind(seq)
                    .bind(&edit.topic)
                    .bind(edit.key.is_some())
                    .bind(edit.key.clone().flatten())
                    .bind(&edit.kind)
                    .bind(headers)
                    .bind(&edit.content_type)
                    .bind(&edit.payload)
                    .bind(by)
                    .execute(connection)
                    .await
            })
            .await?;
        Ok(done.rows_affected() > 0)
    }
}
