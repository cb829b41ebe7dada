//! Reads which steps a database has.

use onceward_core::Schema;
use sqlx::{AssertSqlSafe, PgPool, Row};

use crate::check::Applied;

/// The steps that were applied, oldest first; none in a database without the schema.
pub(crate) async fn applied(pool: &PgPool, schema: &Schema) -> Result<Vec<Applied>, sqlx::Error> {
    let present: bool = sqlx::query_scalar(
        "select exists (
           select
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           where n.nspname = $1 and c.relname = 'migrations'
         )",
    )
    .bind(schema.as_str())
    .fetch_one(pool)
    .await?;
    if !present {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(AssertSqlSafe(format!(
        "select version, checksum from \"{schema}\".migrations order by version"
    )))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Applied {
                version: row.try_get("version")?,
                checksum: row.try_get("checksum")?,
            })
        })
        .collect()
}
