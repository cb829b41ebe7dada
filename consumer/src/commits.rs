//! What a commit waits for, as PostgreSQL's `synchronous_commit` says it.

use sqlx::PgPool;

use crate::within::{Borrowed, START, within};

/// What the commit of a transaction waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commits {
    /// Nothing: it may be lost.
    Visible,
    /// The disk, and that of a synchronous standby: as little as an ack may come after.
    Flushed,
    /// That a synchronous standby shows it too.
    Applied,
}

impl Commits {
    /// What the connections of a pool ask for, and at least what an ack takes. Asked once: to look at it within each transaction costs the
    /// server nearly as much as its begin, all other settings and an empty commit.
    pub(crate) async fn ask(pool: &PgPool) -> Result<Self, sqlx::Error> {
        let mut borrowed = Borrowed::of(pool).await?;
        let ask = sqlx::query_scalar("select current_setting('synchronous_commit')")
            .fetch_one(borrowed.connection());
        let setting: String = within(START, ask).await?;
        borrowed.give_back();
        Ok(match setting.as_str() {
            "remote_apply" => Self::Applied,
            _ => Self::Flushed,
        })
    }

    /// The setting.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            Self::Visible => "off",
            Self::Flushed => "on",
            Self::Applied => "remote_apply",
        }
    }
}
