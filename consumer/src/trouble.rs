//! What a database error means for a delivery. Pure.

use std::error::Error;

use onceward_core::Chain;

/// The longest text of an error that is kept, in characters.
const LONGEST: usize = 2_000;

/// What can be decided by of a database error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A serialization failure or a deadlock: the same again may go well.
    Conflict,
    /// A lock or the statement took too long, or somebody cancelled it.
    TimedOut,
    /// A statement failed before, and the transaction takes no more.
    Aborted,
    /// The database is out of reach, or the connection to it is gone.
    Outage,
    /// Anything else.
    Other,
}

/// The first database error among an error and its sources.
pub(crate) fn database_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e sqlx::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<sqlx::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

pub(crate) fn classify(error: &sqlx::Error) -> Trouble {
    if let sqlx::Error::Database(error) = error {
        return error
            .code()
            .map_or(Trouble::Other, |code| by_sqlstate(&code));
    }
    if matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
    ) {
        Trouble::Outage
    } else {
        Trouble::Other
    }
}

/// Whether to wait until the database answers. That all connections of the pool are in use is no outage: somebody reaches the database
/// by them.
pub(crate) fn is_outage(error: &sqlx::Error) -> bool {
    !matches!(error, sqlx::Error::PoolTimedOut) && classify(error) == Trouble::Outage
}

/// Source: PostgreSQL's documentation, appendix "PostgreSQL Error Codes".
fn by_sqlstate(code: &str) -> Trouble {
    match code {
        "40001" | "40P01" => Trouble::Conflict,
        "55P03" | "57014" => Trouble::TimedOut,
        "25P02" => Trouble::Aborted,
        // Shutdown, crash, starting up; and a session that the server ended for being idle.
        "57P01" | "57P02" | "57P03" | "25P03" => Trouble::Outage,
        _ if code.starts_with("08") => Trouble::Outage,
        _ => Trouble::Other,
    }
}

pub(crate) fn is_cancelled(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "57014")
}

/// An error and its sources in one line, at most 2,000 characters, without what Postgres cannot store.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let text = Chain(error).to_string();
    clean(&text).chars().take(LONGEST).collect()
}

/// Text as Postgres takes it: without NUL.
pub(crate) fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the invoice was not written")]
    struct Domain(#[source] sqlx::Error);

    #[test]
    fn a_database_error_is_found_behind_others() {
        let error = Domain(sqlx::Error::PoolTimedOut);

        let found = database_error(&error).map(classify);

        assert_eq!(found, Some(Trouble::Outage));
        assert!(database_error(&std::fmt::Error).is_none());
    }

    #[test]
    fn states_mean_what_postgres_says() {
        for (code, trouble) in [
            ("40001", Trouble::Conflict),
            ("40P01", Trouble::Conflict),
            ("55P03", Trouble::TimedOut),
            ("57014", Trouble::TimedOut),
            ("25P02", Trouble::Aborted),
            ("08006", Trouble::Outage),
            ("57P01", Trouble::Outage),
            ("23505", Trouble::Other),
            ("57P04", Trouble::Other),
        ] {
            assert_eq!(by_sqlstate(code), trouble, "{code}");
        }
    }

    /// An error of the server with this state.
    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Server(&'static str);

    impl sqlx::error::DatabaseError for Server {
        fn message(&self) -> &str {
            self.0
        }

        fn kind(&self) -> sqlx::error::ErrorKind {
            sqlx::error::ErrorKind::Other
        }

        fn code(&self) -> Option<Cow<'_, str>> {
            Some(self.0.into())
        }

        fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
            self
        }

        fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
            self
        }

        fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
            self
        }
    }

    #[test]
    fn an_outage_is_a_database_that_does_not_answer_and_not_one_that_refuses() {
        for (state, outage) in [
            ("08006", true),
            ("57P01", true),
            ("57P03", true),
            ("55P03", false),
            ("57014", false),
            ("40001", false),
            ("40P01", false),
            ("23505", false),
            ("42501", false),
            ("53300", false),
        ] {
            let error = sqlx::Error::Database(Box::new(Server(state)));
            assert_eq!(is_outage(&error), outage, "{state}");
        }
        let silent = std::io::Error::from(std::io::ErrorKind::TimedOut);
        for (error, outage) in [
            (sqlx::Error::Io(silent), true),
            (sqlx::Error::PoolClosed, true),
            (sqlx::Error::Protocol(String::new()), true),
            (sqlx::Error::PoolTimedOut, false),
            (sqlx::Error::RowNotFound, false),
        ] {
            assert_eq!(is_outage(&error), outage, "{error}");
        }
    }

    #[test]
    fn a_chain_names_each_source_once_and_holds_nothing_that_postgres_refuses() {
        let error = Domain(sqlx::Error::Protocol("a\0b".to_owned()));

        let text = chain(&error);

        assert!(text.starts_with("the invoice was not written: "), "{text}");
        assert!(!text.contains('\0'));
    }

    #[test]
    fn a_chain_is_one_line_of_bounded_length_whatever_the_error_says() {
        let long = "x".repeat(LONGEST);
        let error = Domain(sqlx::Error::Protocol(format!("two\nlines\r\n{long}")));

        let text = chain(&error);

        assert!(text.contains("two; lines; xxx"), "{text}");
        assert!(!text.contains(['\n', '\r']), "{text}");
        assert_eq!(text.chars().count(), LONGEST);
    }
}
