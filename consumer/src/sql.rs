//! Every statement of the consumer. The only place that puts a name into SQL: that of the schema, which is validated.

use std::sync::Arc;
use std::time::Duration;

use onceward_core::Schema;
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};

/// The statements over one schema. Cloning one is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Statements {
    #[cfg(feature = "faults")]
    schema: Schema,
    /// Inserts the mark, unless it is there. One index entry; waits for whoever is inserting the same one.
    /// $1 consumer, $2 mark, $3 outcome, $4 digest.
    mark: Arc<str>,
    /// Whether the mark is there and of this very transaction. By primary key. Also lifts the statement's time limit for
    /// COMMIT: cancelled while it waits for a standby, it would succeed without having been replicated.
    /// $1 slot, $2 consumer, $3 mark.
    proof: Arc<str>,
    /// Whether a transaction that is over has left its mark behind. By primary key. $1 slot, $2 consumer, $3 mark, $4 its xid.
    left_behind: Arc<str>,
    /// Takes over the mark that a handler committed by itself. By primary key. $1 consumer, $2 mark, $3 its xid, $4 outcome.
    take_over: Arc<str>,
    /// Writes a dead letter.
    letter: Arc<str>,
}

impl Statements {
    pub(crate) fn new(schema: Schema) -> Self {
        let fill = |text: &str| text.replace("{schema}", schema.as_str()).into();
        Self {
            mark: fill(MARK),
            proof: fill(PROOF),
            left_behind: fill(LEFT_BEHIND),
            take_over: fill(TAKE_OVER),
            letter: fill(LETTER),
            #[cfg(feature = "faults")]
            schema,
        }
    }

    #[cfg(feature = "faults")]
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Begins a transaction of one attempt, in one round trip.
    pub(crate) fn begin(deadline: Duration, durable: bool) -> SqlStr {
        let statement = deadline.as_millis();
        // Half of it, so that a handler which waits for a lock has time left to say so.
        let lock = (deadline / 2).as_millis().max(1);
        let idle = (deadline * 2).as_millis();
        let commit = if durable { "on" } else { "off" };
        safe(
            format!(
                "begin isolation level read committed read write;
                 set local statement_timeout = {statement};
                 set local lock_timeout = {lock};
                 set local idle_in_transaction_session_timeout = {idle};
                 select pg_catalog.set_config(
                   'synchronous_commit',
                   case pg_catalog.current_setting('synchronous_commit')
                     when 'remote_apply' then 'remote_apply'
                     else '{commit}'
                   end,
                   true)"
            )
            .into(),
        )
    }

    pub(crate) fn mark(&self) -> SqlStr {
        safe(self.mark.clone())
    }

    pub(crate) fn proof(&self) -> SqlStr {
        safe(self.proof.clone())
    }

    pub(crate) fn left_behind(&self) -> SqlStr {
        safe(self.left_behind.clone())
    }

    pub(crate) fn take_over(&self) -> SqlStr {
        safe(self.take_over.clone())
    }

    pub(crate) fn letter(&self) -> SqlStr {
        safe(self.letter.clone())
    }
}

/// A statement over a schema, for what runs seldom.
pub(crate) fn over(schema: &Schema, text: &str) -> SqlStr {
    safe(text.replace("{schema}", schema.as_str()).into())
}

/// A statement over one slot of the ring of marks.
pub(crate) fn over_slot(schema: &Schema, slot: i16, text: &str) -> SqlStr {
    let text = text.replace("{slot}", &format!("processed_messages_{slot}"));
    safe(text.replace("{schema}", schema.as_str()).into())
}

fn safe(text: Arc<str>) -> SqlStr {
    // What was put in is the schema's validated name and numbers, nothing else.
    AssertSqlSafe(text).into_sql_str()
}

const MARK: &str = "
insert into {schema}.processed_messages (slot, consumer, message_id, outcome, digest)
values ({schema}.mark_slot($2), $1, $2, $3, $4)
on conflict do nothing
returning
  slot,
  pg_current_xact_id()::xid::text,
  pg_backend_pid(),
  (select backend_start from pg_stat_get_activity(pg_backend_pid()))";

const PROOF: &str = "
select xmin = pg_current_xact_id()::xid, set_config('statement_timeout', '0', true)
from {schema}.processed_messages
where slot = $1
  and consumer = $2
  and message_id = $3";

const LEFT_BEHIND: &str = "
select xmin = $4::text::xid
from {schema}.processed_messages
where slot = $1
  and consumer = $2
  and message_id = $3";

const TAKE_OVER: &str = "
update {schema}.processed_messages
set outcome = $4, settled_at = clock_timestamp()
where slot = {schema}.mark_slot($2)
  and consumer = $1
  and message_id = $2
  and xmin = $3::text::xid";

const LETTER: &str = "
insert into {schema}.dead_letters (
  consumer, message_id, original_id, topic, key, type, headers, payload, source, created_at,
  origin, reason, error, history, attempts, first_failed_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_placeholder_is_left_in_any_statement() {
        let schema = Schema::try_from("other").unwrap();
        let statements = Statements::new(schema);

        for statement in [
            statements.mark(),
            statements.proof(),
            statements.left_behind(),
            statements.take_over(),
            statements.letter(),
            Statements::begin(Duration::from_secs(30), true),
        ] {
            assert!(!statement.as_str().contains(['{', '}']), "{statement:?}");
        }
    }
}
