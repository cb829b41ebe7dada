//! Changes a dead letter, within what enqueueing would take.

use std::collections::BTreeMap;

use onceward_core::wire::{CONTENT_TYPE, is_content_type};
use onceward_core::{Headers, InvalidMessage, Key, Kind, Schema, Topic};
use sqlx::PgPool;
use sqlx::types::Json;

use crate::sql;

/// What to change of a dead letter: a field that is `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// What it is about.
    pub topic: Option<String>,
    /// Its key; `Some(None)`: none any more.
    pub key: Option<Option<String>>,
    /// Its type, which chooses its handler.
    pub kind: Option<String>,
    /// Headers to set.
    pub set_headers: BTreeMap<String, String>,
    /// Headers to remove.
    pub remove_headers: Vec<String>,
    /// The media type of the payload.
    pub content_type: Option<String>,
    /// The payload.
    pub payload: Option<Vec<u8>>,
}

impl Edit {
    /// Refuses what enqueueing would refuse of each part, before anything is changed. Not what the message would be with it: the payload may
    /// have any size, and whether there is a key to a sequence, if the key is not changed, nobody asks.
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
        for (name, value) in &self.set_headers {
            checked.insert(name, value)?;
        }
        // A key that is not changed may be there.
        checked.check_sequence(self.key != Some(None))?;
        if let Some(content_type) = &self.content_type
            && !is_content_type(content_type)
        {
            return Err(InvalidMessage::ContentType(content_type.clone()));
        }
        Ok(())
    }

    /// All headers to set, the content type among them.
    fn headers(&self) -> BTreeMap<&str, &str> {
        let set = self.set_headers.iter();
        let mut headers: BTreeMap<&str, &str> =
            set.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        if let Some(content_type) = &self.content_type {
            headers.insert(CONTENT_TYPE, content_type);
        }
        headers
    }
}

/// Only while it waits for a person: what was replayed is in the hands of the consumer. By primary key.
const EDIT: &str = "
update {schema}.dead_letters
set
  topic = coalesce($2, topic),
  key = case when $3 then $4 else key end,
  type = coalesce($5, type),
  headers = (headers - $6::text[]) || $7::jsonb,
  payload = coalesce($8, payload),
  changed_at = clock_timestamp(),
  decisions = decisions || jsonb_build_array(
    jsonb_build_object('at', clock_timestamp(), 'what', 'edited', 'by', $9::text))
where id = $1
  and state in ('dead', 'discarded')";

/// Changes a dead letter that waits for a person, or was discarded. False: there is none in such a state. Call
/// [`Edit::check`] first; `by` is who did it. The key of its mark and its original id stay.
///
/// # Errors
/// Any database error; nothing is changed.
///
/// # Cancel safety
/// Dropped, the change may or may not have been made.
pub async fn edit(
    pool: &PgPool,
    schema: &Schema,
    id: i64,
    edit: &Edit,
    by: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(sql::over(schema, EDIT))
        .bind(id)
        .bind(&edit.topic)
        .bind(edit.key.is_some())
        .bind(edit.key.clone().flatten())
        .bind(&edit.kind)
        .bind(&edit.remove_headers)
        .bind(Json(edit.headers()))
        .bind(&edit.payload)
        .bind(by)
        .execute(pool)
        .await?;
    Ok(done.rows_affected() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_that_is_no_number_or_that_loses_its_key_is_refused() {
        let edit = |number: &str, key| Edit {
            key,
            set_headers: BTreeMap::from([("onceward-sequence".to_owned(), number.to_owned())]),
            ..Edit::default()
        };

        assert!(edit("9", None).check().is_ok());
        let bad = edit("nine", None).check();
        assert!(matches!(bad, Err(InvalidMessage::Sequence)));
        let keyless = edit("9", Some(None)).check();
        assert!(matches!(keyless, Err(InvalidMessage::SequenceWithoutKey)));
    }
}
