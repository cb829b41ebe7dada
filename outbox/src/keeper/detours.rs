//! Detours: a cursor of its own for one topic, or for one key of it, while that waits and the others go on.

use std::fmt;
use std::str::FromStr;

use onceward_core::{Key, Lane, Topic};
use serde_json::Value;
use sqlx::Row;

use super::{Commit, Keeper, Statement};
use crate::log::{Cursor, LateBelow, LogError, Paging};
use crate::sql::render;

/// What a detour reads of its lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Detour {
    /// The topic that waits.
    pub topic: Topic,
    /// The key that is held; none: all of the topic but the keys that are held.
    pub key: Option<Key>,
}

/// A text that names no detour: another release has written it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a detour that this release does not know: {0:?}")]
pub struct UnknownDetour(String);

/// A detour and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetourCursor {
    /// Its lane.
    pub lane: Lane,
    /// What it reads.
    pub detour: Detour,
    /// Where it stands.
    pub cursor: Cursor,
}

/// A detour to open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDetour {
    /// Its lane.
    pub lane: Lane,
    /// What it will read.
    pub detour: Detour,
    /// The detour out of which it comes; none: the main cursor of the lane.
    pub parent: Option<Detour>,
}

impl fmt::Display for Detour {
    /// The name under which its cursor is stored. No topic holds a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            None => write!(f, "topic:{}", self.topic),
            Some(key) => write!(f, "key:{}:{key}", self.topic),
        }
    }
}

impl FromStr for Detour {
    type Err = UnknownDetour;

    fn from_str(text: &str) -> Result<Self, UnknownDetour> {
        let (topic, key) = match text.split_once(':') {
            Some(("topic", topic)) => (topic, None),
            Some(("key", rest)) => match rest.split_once(':') {
                Some((topic, key)) => (topic, Some(key)),
                None => return Err(UnknownDetour(text.to_owned())),
            },
            Some(_) | None => return Err(UnknownDetour(text.to_owned())),
        };
        Ok(Self {
            topic: Topic::received(topic),
            key: key.map(Key::received),
        })
    }
}

/// By the primary key of `cursors`. All that the detours read so far is published.
const CLOSE: Statement = Statement {
    doing: "closing detours",
    also: "",
    commit: Commit::Soon,
    text: ",
closed as (
  delete from {{schema}}.cursors c
  using unnest($4::smallint[], $5::text[]) n(lane, detour)
  where c.stream = $1 and c.lane = n.lane and c.detour = n.detour and c.detour <> '' and exists (select from held)
  returning 1
)
select (select count(*) from held), pg_backend_pid(), (select count(*) from closed)",
};

/// By a scan of `parked`, which is small.
const WAITING: &str = "
select distinct p.topic, p.key
from {{schema}}.parked p
join unnest($2::text[], $3::text[]) h(topic, key) on h.topic = p.topic and h.key = p.key
where p.stream = $1 and p.state in ('parked', 'due')";

impl Keeper {
    /// Opens detours at their parents' *stored* cursors. Once this returns, the parents may pass what the detours read.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: stop at once; nothing was stored. Any other: they may or may not be open, so pass nothing.
    ///
    /// # Cancel safety
    /// Dropped, they may or may not be open, all or none: pass nothing. The connection is of no more use.
    pub async fn open_detours(
        &mut self,
        detours: &[NewDetour],
    ) -> Result<Vec<DetourCursor>, LogError> {
        self.set_aside(&[], detours).await
    }

    /// Closes detours whose parents have come to the same place, when all that they read is published.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: stop at once; nothing was stored. Any other: they may or may not be closed.
    ///
    /// # Cancel safety
    /// Dropped, they may or may not be closed, all or none; the connection is of no more use.
    pub async fn close_detours(&mut self, detours: &[(Lane, Detour)]) -> Result<(), LogError> {
        self.under_lease(CLOSE, |arguments| {
            use sqlx::Arguments as _;
            let lanes = detours.iter().map(|(lane, _)| lane.number());
            let names = detours.iter().map(|(_, detour)| detour.to_string());
            arguments.add(lanes.collect::<Vec<_>>())?;
            arguments.add(names.collect::<Vec<_>>())
        })
        .await
        .map(drop)
    }

    /// Of these keys those of which a message is parked or due.
    ///
    /// # Errors
    /// That the database failed, or [`LogError::Fenced`] without a claim.
    ///
    /// # Cancel safety
    /// Dropped, nothing is changed; the connection is of no more use.
    pub async fn waiting_keys(
        &mut self,
        keys: &[(Topic, Key)],
    ) -> Result<Vec<(Topic, Key)>, LogError> {
        const LOADING: &str = "loading the keys that wait for a parked message";

        let Some(held) = &self.held else {
            return Err(LogError::Fenced);
        };
        let stream = held.stream.as_str();
        let sql = render(&self.schema, WAITING);
        let topics: Vec<&str> = keys.iter().map(|(topic, _)| topic.as_str()).collect();
        let keys: Vec<&str> = keys.iter().map(|(_, key)| key.as_str()).collect();
        let rows = self
            .session
            .call(LOADING, async |connection| {
                sqlx::query(sql)
                    .bind(stream)
                    .bind(topics)
                    .bind(keys)
                    .fetch_all(connection)
                    .await
            })
            .await?;
        let decoded = rows.iter().map(|row| {
            let (topic, key) = (row.try_get("topic")?, row.try_get("key")?);
            Ok((Topic::received(topic), Key::received(key)))
        });
        decoded
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|error| LogError::malformed(LOADING, error))
    }
}

/// What `opened` and the claim say of a cursor, as `jsonb`.
pub(super) fn decode(row: &Value) -> Result<(Lane, String, Cursor), sqlx::Error> {
    let wrong = || sqlx::Error::Decode(format!("a cursor {row}").into());
    let number = |name: &str| row.get(name).and_then(Value::as_i64);
    let text = |name: &str| row.get(name).and_then(Value::as_str);
    let snapshot = |text: &str| {
        let parsed = text.parse();
        parsed.map_err(|error| sqlx::Error::Decode(Box::new(error)))
    };
    let lane = number("lane").and_then(|lane| Lane::from_number(lane.try_into().ok()?));
    let paging = match (text("pinned"), number("late_pos")) {
        (Some(pinned), Some(late_pos)) => Some(Paging {
            pinned: snapshot(pinned)?,
            late_pos,
        }),
        (None | Some(_), None | Some(_)) => None,
    };
    let mut cursor = Cursor {
        last: number("last_seq").ok_or_else(wrong)?,
        snapshot: snapshot(text("snapshot").ok_or_else(wrong)?)?,
        paging,
        floor: number("floor").ok_or_else(wrong)?,
        late_below: LateBelow::default(),
    };
    if let (Some(given), Some(txid)) = (number("late_upto"), text("late_below")) {
        cursor.learn(given, txid.parse().map_err(|_| wrong())?);
    }
    let detour = text("detour").ok_or_else(wrong)?.to_owned();
    Ok((lane.ok_or_else(wrong)?, detour, cursor))
}

/// A detour's cursor out of its row.
pub(super) fn detour_cursor(row: &Value) -> Result<DetourCursor, sqlx::Error> {
    let (lane, name, cursor) = decode(row)?;
    let detour = name
        .parse::<Detour>()
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(DetourCursor {
        lane,
        detour,
        cursor,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detour_is_stored_under_a_name_that_tells_what_it_reads() {
        let topic = Topic::received("orders.created");
        let whole = Detour {
            topic: topic.clone(),
            key: None,
        };
        let key = Detour {
            topic,
            key: Some(Key::received("a:b")),
        };

        assert_eq!(whole.to_string(), "topic:orders.created");
        assert_eq!(key.to_string(), "key:orders.created:a:b");
        for detour in [whole, key] {
            assert_eq!(detour.to_string().parse(), Ok(detour));
        }
        for text in ["", "rebase", "topic", "key:orders", "x:orders"] {
            assert!(text.parse::<Detour>().is_err(), "{text}");
        }
    }
}
