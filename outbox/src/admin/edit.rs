//! Changes a parked message, within what enqueueing would take.

use std::collections::BTreeMap;

use onceward_core::wire::is_content_type;
use onceward_core::{Headers, InvalidMessage, Key, Kind, Topic};

use super::LogAdmin;
use crate::log::LogError;
use crate::sql::render;

/// What to change of a parked message: a field that is `None` stays as it is.
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
    /// Refuses what enqueueing would refuse of each part, before anything is changed. Not what the message would be with it: how large the
    /// payload may be the broker says, and whether there is a key to a sequence, if neither is changed, nobody asks.
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
        // A key that is not changed may be there.
        checked.check_sequence(self.key != Some(None))?;
        if let Some(content_type) = &self.content_type
            && !is_content_type(content_type)
        {
            return Err(InvalidMessage::ContentType(content_type.clone()));
        }
        Ok(())
    }
}

/// What a change of a parked message brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edited {
    /// Later messages of the key that it had waited for it. It has another topic or key now, and nothing else holds that key: the
    /// lease holder publishes them without it.
    pub frees_key: bool,
}

/// Only while it waits for a person: what is due may be on its way. With another topic or key it loses its sequence, unless it is given
/// another: that numbers the messages of the key which it had. By primary keys, and a scan of `parked`, which is small.
const EDIT: &str = "
with before as (
  select stream, seq, lane, topic, key
  from {{schema}}.parked
  where stream = $1 and seq = $2 and state = 'parked'
  for update
),
edited as (
  update {{schema}}.parked p
  set topic = coalesce($3, p.topic),
    key = case when $4 then $5 else p.key end,
    type = coalesce($6, p.type),
    headers = (
        coalesce($7::jsonb, p.headers - 'content-type')
        || jsonb_strip_nulls(jsonb_build_object('content-type', coalesce($8::text, p.headers ->> 'content-type')))
      )
      - case
          when (coalesce($3, p.topic), case when $4 then $5 else p.key end) is distinct from (p.topic, p.key)
            and coalesce($7::jsonb, p.headers) -> 'onceward-sequence' is not distinct from p.headers -> 'onceward-sequence'
          then array['onceward-sequence']
          else '{}'
        end,
    payload = coalesce($9, p.payload),
    changed_at = clock_timestamp(),
    history = p.history || jsonb_build_array(jsonb_build_object('at', clock_timestamp(), 'what', 'edited', 'by', $10::text))
  from before b
  where p.stream = b.stream and p.seq = b.seq
  returning p.topic, p.key
)
select (e.topic, e.key) is distinct from (b.topic, b.key)
  and exists (
    select
    from {{schema}}.cursors c
    where c.stream = b.stream and c.lane = b.lane and c.detour = 'key:' || b.topic || ':' || b.key
  )
  and not exists (
    select
    from {{schema}}.parked o
    where o.stream = b.stream and o.seq <> b.seq and o.topic = b.topic and o.key = b.key and o.state in ('parked', 'due')
  ) as frees_key
from before b
cross join edited e";

impl LogAdmin {
    /// Changes a message that waits for a person. Returns none if there is none: it may be due already. Call
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
    ) -> Result<Option<Edited>, LogError> {
        let sql = render(&self.schema, EDIT);
        let headers = edit.headers.as_ref().map(sqlx::types::Json);
        let frees_key: Option<bool> = self
            .session
            .call("editing a parked message", async |connection| {
                sqlx::query_scalar(sql)
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
                    .fetch_optional(connection)
                    .await
            })
            .await?;
        Ok(frees_key.map(|frees_key| Edited { frees_key }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_that_is_no_number_or_that_loses_its_key_is_refused() {
        let edit = |number: &str, key| ParkedEdit {
            key,
            headers: Some(BTreeMap::from([(
                "onceward-sequence".to_owned(),
                number.to_owned(),
            )])),
            ..ParkedEdit::default()
        };

        assert!(edit("9", None).check().is_ok());
        let bad = edit("nine", None).check();
        assert!(matches!(bad, Err(InvalidMessage::Sequence)));
        let keyless = edit("9", Some(None)).check();
        assert!(matches!(keyless, Err(InvalidMessage::SequenceWithoutKey)));
    }
}
