//! Every statement of the consumer. The only place that puts a name into SQL: that of the schema or of the consumer, which are validated.

mod batch;
mod marks;
mod positions;
mod retries;
mod sequences;
mod starts;
mod types;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use marks::ENQUEUE;
use onceward_core::Schema;
pub(crate) use retries::{ADD, HOLD};
use sqlx::{AssertSqlSafe, SqlSafeStr as _, SqlStr};
use uuid::Uuid;

use crate::commits::Commits;
use crate::{ConsumerName, keeper};

/// What a transaction waits for while it is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// At most for its handler.
    ForHandler,
    /// Before that, until the start of it is written.
    ForStart,
}

impl Waits {
    /// Of a transaction whose start is to be written, or not.
    pub(crate) fn of(guarded: bool) -> Self {
        if guarded {
            Self::ForStart
        } else {
            Self::ForHandler
        }
    }

    /// How much longer than its handler's deadline the transaction may be idle.
    fn for_long(self, deadline: Duration) -> Duration {
        match self {
            Self::ForHandler => deadline,
            Self::ForStart => deadline.max(keeper::patience(deadline) + AROUND),
        }
    }
}

/// How much longer a transaction may be idle than for its handler and a start: to say that a handler has ended, and to roll back.
const AROUND: Duration = Duration::from_secs(2);

/// A statement over one schema. Cloning one is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Text(Arc<str>);

impl Text {
    pub(crate) fn sql(&self) -> SqlStr {
        safe(self.0.clone())
    }
}

/// The statements over one schema that run for each message. What each does, locks and takes stands beside its text.
#[derive(Debug, Clone)]
pub(crate) struct Statements {
    pub(crate) schema: Schema,
    pub(crate) mark: Text,
    pub(crate) digest: Text,
    pub(crate) marks: Text,
    pub(crate) digests: Text,
    pub(crate) held_lines: Text,
    pub(crate) take_up: Text,
    pub(crate) change_mark: Text,
    pub(crate) proof: Text,
    pub(crate) left_behind: Text,
    pub(crate) take_over: Text,
    pub(crate) letter: Text,
    pub(crate) letter_again: Text,
    pub(crate) enqueue: Text,
    pub(crate) is_held: Text,
    pub(crate) hold: Text,
    pub(crate) add: Text,
    pub(crate) due: Text,
    pub(crate) next_due: Text,
    pub(crate) claim: Text,
    pub(crate) lock: Text,
    pub(crate) remove: Text,
    pub(crate) lock_line: Text,
    pub(crate) head: Text,
    pub(crate) move_line: Text,
    pub(crate) end_line: Text,
    pub(crate) lease_line: Text,
    pub(crate) put_off: Text,
    pub(crate) pause: Text,
    pub(crate) paused: Text,
    pub(crate) stays_paused: Text,
    pub(crate) probe: Text,
    pub(crate) move_turn: Text,
    pub(crate) resume: Text,
    pub(crate) make_due: Text,
    pub(crate) lock_resumed: Text,
    pub(crate) forget: Text,
    pub(crate) count: Text,
    pub(crate) unfinished: Text,
    pub(crate) start_alone: Text,
    pub(crate) forget_starts: Text,
    pub(crate) note_positions: Text,
    pub(crate) highest: Text,
    pub(crate) next_number: Text,
    pub(crate) lock_numbers: Text,
    pub(crate) set_numbers: Text,
    pub(crate) first_number: Text,
    pub(crate) number_left_behind: Text,
}

impl Statements {
    pub(crate) fn new(schema: Schema) -> Self {
        let fill = |text: &str| Text(in_schema(&schema, text).into());
        Self {
            mark: fill(marks::MARK),
            digest: fill(marks::DIGEST),
            marks: fill(batch::MARKS),
            digests: fill(batch::DIGESTS),
            held_lines: fill(batch::HELD_LINES),
            take_up: fill(marks::TAKE_UP),
            change_mark: fill(marks::CHANGE),
            proof: fill(marks::PROOF),
            left_behind: fill(marks::LEFT_BEHIND),
            take_over: fill(marks::TAKE_OVER),
            letter: fill(marks::LETTER),
            letter_again: fill(marks::LETTER_AGAIN),
            enqueue: fill(marks::ENQUEUE),
            is_held: fill(retries::IS_HELD),
            hold: fill(retries::HOLD),
            add: fill(retries::ADD),
            due: fill(retries::DUE),
            next_due: fill(retries::NEXT_DUE),
            claim: fill(retries::CLAIM),
            lock: fill(retries::LOCK),
            remove: fill(retries::REMOVE),
            lock_line: fill(retries::LOCK_LINE),
            head: fill(retries::HEAD),
            move_line: fill(retries::MOVE_LINE),
            end_line: fill(retries::END_LINE),
            lease_line: fill(retries::LEASE_LINE),
            put_off: fill(retries::PUT_OFF),
            pause: fill(types::PAUSE),
            paused: fill(types::PAUSED),
            stays_paused: fill(types::STAYS_PAUSED),
            probe: fill(types::PROBE),
            move_turn: fill(types::MOVE_TURN),
            resume: fill(types::RESUME),
            make_due: fill(types::MAKE_DUE),
            lock_resumed: fill(types::LOCK_RESUMED),
            forget: fill(types::FORGET),
            count: fill(types::COUNT),
            unfinished: fill(starts::UNFINISHED),
            start_alone: fill(starts::START_ALONE),
            forget_starts: fill(starts::FORGET_START),
            note_positions: fill(positions::NOTE),
            highest: fill(positions::HIGHEST),
            next_number: fill(sequences::NEXT),
            lock_numbers: fill(sequences::LOCK),
            set_numbers: fill(sequences::SET),
            first_number: fill(sequences::FIRST),
            number_left_behind: fill(sequences::LEFT_BEHIND),
            schema,
        }
    }

    /// Says in one round trip which handlers of a member have ended, and which start. Gives a row for each one that may start beside
    /// others. Fails on the server after `limit`, and after half of it if it waits for a lock.
    pub(crate) fn note_starts(
        &self,
        (consumer, member): (&ConsumerName, Uuid),
        ended: &[Uuid],
        started: &[Uuid],
        limit: Duration,
    ) -> SqlStr {
        let statement = limit.as_millis();
        let mut text = starts::BEGIN
            .replace("{statement}", &statement.to_string())
            .replace("{lock}", &(statement / 2).to_string());
        let both = [(starts::END, ended), (starts::START, started)];
        for (statement, marks) in both.into_iter().filter(|(_, marks)| !marks.is_empty()) {
            let marks: Vec<String> = marks.iter().map(Uuid::to_string).collect();
            text += &statement.replace("{marks}", &marks.join(","));
        }
        text += "commit";
        // A consumer's name is letters, digits and underscores; the rest are numbers.
        let text = in_schema(&self.schema, &text)
            .replace("{consumer}", consumer.as_str())
            .replace("{member}", &member.to_string());
        safe(text.into())
    }

    /// Begins a transaction of one attempt, in one round trip. Waits for locks end after half of the deadline, so that a
    /// handler which waits for one has time left to say so, and after `patience`.
    pub(crate) fn begin(
        deadline: Duration,
        patience: Duration,
        waits: Waits,
        commits: Commits,
    ) -> SqlStr {
        let statement = deadline.as_millis();
        let lock = (deadline / 2).min(patience).as_millis().max(1);
        let idle = (deadline + waits.for_long(deadline)).as_millis();
        let commit = commits.setting();
        safe(
            format!(
                "begin isolation level read committed read write;
                 set local statement_timeout = {statement};
                 set local lock_timeout = {lock};
                 set local idle_in_transaction_session_timeout = {idle};
                 set local synchronous_commit = {commit}"
            )
            .into(),
        )
    }
}

/// A statement over a schema, for what runs seldom.
pub(crate) fn over(schema: &Schema, text: &str) -> SqlStr {
    safe(in_schema(schema, text).into())
}

/// A statement over one slot of the ring of marks.
pub(crate) fn over_slot(schema: &Schema, slot: i16, text: &str) -> SqlStr {
    let text = text.replace("{slot}", &format!("processed_messages_{slot}"));
    safe(in_schema(schema, &text).into())
}

/// In quotes: a name may be a word of SQL, such as `order`.
fn in_schema(schema: &Schema, text: &str) -> String {
    text.replace("{schema}", &format!("\"{schema}\""))
}

fn safe(text: Arc<str>) -> SqlStr {
    // What was put in are validated names and numbers, nothing else.
    AssertSqlSafe(text).into_sql_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_placeholder_is_left_in_any_statement() {
        let schema = Schema::try_from("other").unwrap();
        let statements = format!("{:?}", Statements::new(schema));
        let deadline = Duration::from_secs(30);
        let begin = Statements::begin(deadline, Duration::MAX, Waits::ForStart, Commits::Flushed);
        let consumer = ConsumerName::try_from("billing").unwrap();
        let (member, mark) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let schema = Schema::try_from("other").unwrap();
        let notes = Statements::new(schema).note_starts(
            (&consumer, member),
            &[mark],
            &[mark, member],
            Duration::from_secs(4),
        );
        let notes = notes.as_str();

        let both = format!("'{{{mark},{member}}}'");
        assert_eq!(notes.matches(&both).count(), 1, "{notes}");
        assert!(
            !notes
                .replace(&both, "")
                .replace(&format!("'{{{mark}}}'"), "")
                .contains(['{', '}', '$']),
            "{notes}"
        );
        assert!(!statements.contains("{schema}"), "{statements}");
        assert!(!begin.as_str().contains(['{', '}']), "{begin:?}");
    }

    /// How long a transaction of an attempt may be idle.
    fn idle(deadline: Duration, waits: Waits) -> Duration {
        let begin = Statements::begin(deadline, Duration::MAX, waits, Commits::Flushed);
        let (_, idle) = begin
            .as_str()
            .split_once("idle_in_transaction_session_timeout = ")
            .unwrap();
        let (idle, _) = idle.split_once(';').unwrap();
        Duration::from_millis(idle.parse().unwrap())
    }

    #[test]
    fn a_transaction_may_be_idle_while_its_start_is_waited_for() {
        for seconds in [0, 1, 4, 8, 30, 3_600] {
            let deadline = Duration::from_secs(seconds);
            let idle = idle(deadline, Waits::ForStart);

            assert!(idle > keeper::patience(deadline) + deadline, "{seconds}");
            assert!(idle >= deadline * 2, "{seconds}");
        }
    }

    #[test]
    fn what_a_frozen_member_has_locked_is_free_after_twice_its_deadline_unless_it_may_kill_its_process()
     {
        for seconds in [1, 4, 30] {
            let deadline = Duration::from_secs(seconds);

            assert_eq!(idle(deadline, Waits::ForHandler), deadline * 2);
        }
    }
}
