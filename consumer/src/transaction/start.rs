//! Starts: what is written before the handler of a suspect, so that a process that dies leaves a trace.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{ANSWER, Database, within};
use crate::faults::{Fault, planted};
use crate::mark::Mark;

impl Database {
    /// Says that a handler starts. False: another life has started it and has not ended it.
    pub(crate) async fn start(&self, mark: &Mark, member: Uuid) -> Result<bool, sqlx::Error> {
        let start = sqlx::query_scalar::<_, bool>(self.statements.start.sql())
            .bind(self.consumer.as_str())
            .bind(mark.id)
            .bind(member)
            .fetch_optional(&self.pool);
        Ok(within(ANSWER, start).await?.is_some())
    }

    /// Takes over the start of another life, to run the handler alone. Tells how often a process died while it ran
    /// alone; none: it has ended meanwhile.
    pub(crate) async fn start_alone(
        &self,
        mark: &Mark,
        member: Uuid,
    ) -> Result<Option<i16>, sqlx::Error> {
        let start = sqlx::query_scalar(self.statements.start_alone.sql())
            .bind(self.consumer.as_str())
            .bind(mark.id)
            .bind(member)
            .bind(planted(Fault::NeighboursCounted))
            .fetch_optional(&self.pool);
        within(ANSWER, start).await
    }

    /// Says that a handler has ended.
    pub(crate) async fn end_start(&self, mark: &Mark, member: Uuid) -> Result<(), sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        self.end_start_on(&mut connection, mark, member).await
    }

    pub(super) async fn end_start_on(
        &self,
        connection: &mut PgConnection,
        mark: &Mark,
        member: Uuid,
    ) -> Result<(), sqlx::Error> {
        let end = sqlx::query(self.statements.end_start.sql())
            .bind(self.consumer.as_str())
            .bind(mark.id)
            .bind(member)
            .execute(connection);
        within(ANSWER, end).await.map(drop)
    }
}
