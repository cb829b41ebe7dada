//! A dead letter as it is written.

use sqlx::Postgres;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::types::Json;
use uuid::Uuid;

use crate::ConsumerName;
use crate::history::History;
use crate::plan::DeadReason;
use crate::sql::Statements;
use crate::stored::Stored;
use crate::trouble::clean;

/// A dead letter.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    pub(crate) content: &'a Stored,
    pub(crate) reason: DeadReason,
    pub(crate) error: &'a str,
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
        let content = self.content;
        sqlx::query(statements.letter.sql())
            .bind(consumer.as_str())
            .bind(mark)
            .bind(&content.original_id)
            .bind(&content.topic)
            .bind(&content.key)
            .bind(&content.kind)
            .bind(&content.headers)
            .bind(&content.payload[..])
            .bind(&content.source)
            .bind(content.created_at)
            .bind(&content.origin)
            .bind(self.reason.code())
            .bind(clean(self.error))
            .bind(Json(self.history.attempts()))
            .bind(self.history.count())
            .bind(self.history.first_failed_at())
    }

    /// The statement that says that it is dead again, after it was replayed.
    pub(crate) fn again<'q>(
        &'q self,
        statements: &Statements,
        consumer: &'q ConsumerName,
        id: i64,
    ) -> Query<'q, Postgres, PgArguments> {
        sqlx::query(statements.letter_again.sql())
            .bind(id)
            .bind(consumer.as_str())
            .bind(self.reason.code())
            .bind(clean(self.error))
            .bind(Json(self.history.attempts()))
            .bind(self.history.count())
    }
}
