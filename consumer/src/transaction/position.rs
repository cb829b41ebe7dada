//! How far the consumer has come in each partition, and whether that leaves a delivery in doubt.

use std::collections::HashMap;

use onceward_core::{Origin, Partition};
use sqlx::PgConnection;

use super::{ANSWER, Database, conclude, within};
use crate::age::is_settled_before;
use crate::trouble::clean;

impl Database {
    /// Notes how far the consumer has come: all up to there is settled. In a transaction of its own, after those of the marks.
    pub(crate) async fn note_positions(
        &self,
        positions: &[(Partition, u64)],
    ) -> Result<(), sqlx::Error> {
        let (partitions, highest): (Vec<String>, Vec<i64>) = positions
            .iter()
            .filter_map(|(partition, position)| {
                Some((clean(partition.as_str()), i64::try_from(*position).ok()?))
            })
            .unzip();
        let mut session = self.begin_brief().await?;
        let note = sqlx::query(self.statements.note_positions.sql())
            .bind(self.consumer.as_str())
            .bind(partitions)
            .bind(highest)
            .execute(session.connection());
        let noted = within(ANSWER, note).await.map(drop);
        conclude(session, noted).await
    }

    /// Of deliveries whose marks may be forgotten, which the consumer has passed already: nobody can tell whether it has
    /// handled them. In the order given.
    pub(super) async fn passed(
        &self,
        connection: &mut PgConnection,
        origins: &[&Origin],
    ) -> Result<Vec<bool>, sqlx::Error> {
        let name = |origin: &Origin| clean(origin.partition.as_str());
        let mut partitions: Vec<String> = origins.iter().map(|origin| name(origin)).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let ask = sqlx::query_as::<_, (String, i64)>(self.statements.highest.sql())
            .bind(self.consumer.as_str())
            .bind(partitions)
            .fetch_all(connection);
        let highest: HashMap<String, i64> = within(ANSWER, ask).await?.into_iter().collect();
        let passed = origins.iter().map(|origin| {
            let highest = highest.get(&name(origin)).copied();
            is_settled_before(origin.position, highest)
        });
        Ok(passed.collect())
    }
}
