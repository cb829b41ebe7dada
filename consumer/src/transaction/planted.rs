//! The planted bug of a dedupe outside the transaction: look up, handle, commit, and only then mark.

use std::time::Instant;

use super::ended::{Ended, handle};
use super::mark::Says;
use super::{Database, Order, Ran};
use crate::faults::{Failpoint, pass};
use crate::handler::Verdict;
use crate::plan::Run;
use crate::sql;

const LOOK_UP: &str = "
select exists (
  select from {schema}.processed_messages where consumer = $1 and message_id = $2)";

impl Database {
    pub(super) async fn attempt_with_dedupe_outside(&self, order: &Order<'_>) -> Ran {
        let run = self.outside(order).await.unwrap_or(Run::Outage);
        Ran::new(run, "with the dedupe outside of the transaction")
    }

    async fn outside(&self, order: &Order<'_>) -> Result<Run, sqlx::Error> {
        let look_up = sql::over(&self.statements.schema, LOOK_UP);
        let there: bool = sqlx::query_scalar(look_up)
            .bind(self.consumer.as_str())
            .bind(order.mark.id)
            .fetch_one(&self.pool)
            .await?;
        if there {
            return Ok(Run::Duplicate);
        }
        let session = self.begin(order.deadline).await?;
        let (session, ended) = handle(order, session, Instant::now() + order.deadline).await;
        pass(Failpoint::AfterHandler);
        if !matches!(ended, Ended::Done) {
            return Ok(Run::Failed(Verdict::Retry));
        }
        pass(Failpoint::BeforeCommit);
        session.commit().await?;
        pass(Failpoint::BeforeMark);
        let mut connection = self.pool.acquire().await?;
        self.insert_mark(&mut connection, order.mark, Says::Handled, order.deadline)
            .await?;
        Ok(Run::Handled)
    }
}
