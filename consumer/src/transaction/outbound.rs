//! Sends a dead letter on, through the log of the same database and in the transaction of its mark.

use onceward_core::{Topic, wire};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use tracing::error;
use uuid::Uuid;

use super::settle::DEADLINE;
use super::{ANSWER, Database, within};
use crate::dead_letter::{Letter, outbound};
use crate::trouble::chain;

/// What enqueueing refuses.
const REFUSED: &str = "OW001";

impl Database {
    /// Enqueues it for `topic`. What the log refuses stays in `dead_letters` alone: it must not hold up its key. The
    /// savepoint holds nothing but that.
    pub(super) async fn send_on(
        &self,
        connection: &mut PgConnection,
        topic: &Topic,
        mark: Uuid,
        letter: &Letter<'_>,
    ) -> Result<(), sqlx::Error> {
        run(connection, "savepoint onceward_outbound").await?;
        let content = letter.content;
        let (mut headers, content_type) = outbound::headers(&content.headers.0);
        let id = content
            .original_id
            .clone()
            .unwrap_or_else(|| mark.to_string());
        for (name, value) in [
            ("reason", letter.reason.code()),
            ("consumer", self.consumer.as_str()),
            ("topic", content.topic.as_str()),
            ("id", id.as_str()),
        ] {
            headers.insert(format!("{}{name}", wire::DEAD_LETTER), Value::from(value));
        }
        let enqueue = sqlx::query(self.statements.enqueue.sql())
            .bind(topic.as_str())
            .bind(&content.payload[..])
            .bind(outbound::key(content))
            .bind(outbound::kind(content))
            .bind(Json(headers))
            .bind(content_type)
            .execute(&mut *connection);
        match within(DEADLINE + ANSWER, enqueue).await {
            Ok(_) => run(connection, "release savepoint onceward_outbound").await,
            Err(error) if is_refused(&error) => {
                error!(%mark, error = %chain(&error), "a dead letter cannot be sent on; it is in the table only");
                run(connection, "rollback to savepoint onceward_outbound").await
            }
            Err(error) => Err(error),
        }
    }
}

async fn run(connection: &mut PgConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    let run = sqlx::query(statement).execute(connection);
    within(ANSWER, run).await.map(drop)
}

fn is_refused(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.as_deref() == Some(REFUSED)
}
