//! Why a command ends without success: what happened, why, and what to do.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use onceward::schema::{Finding, Severity};
use onceward_core::BoxError;
use serde_json::{Value, json};

use crate::config::ConfigError;

/// A command that did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    kind: Kind,
    what: String,
    remedy: Option<String>,
    source: Option<BoxError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It was tried and failed, or found something wrong.
    Failed,
    /// It was asked for in a way that cannot be done.
    Usage,
}

impl Failure {
    /// It was tried and failed.
    pub(super) fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    /// The command line or the configuration is wrong.
    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            remedy: None,
            source: None,
        }
    }

    /// Says what to do about it.
    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Says what is behind it.
    pub(super) fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(super) fn code(&self) -> ExitCode {
        match self.kind {
            Kind::Failed => ExitCode::from(1),
            Kind::Usage => ExitCode::from(2),
        }
    }

    /// Whether the database refused it for want of a right.
    pub(super) fn is_forbidden(&self) -> bool {
        let source = self.source.as_ref().map(|source| &**source as &dyn Error);
        let chain = std::iter::successors(source, |error| (*error).source());
        let mut of_database = chain.filter_map(|error| error.downcast_ref::<sqlx::Error>());
        of_database.any(super::database::is_forbidden)
    }

    /// The same as something that was found, for a command that goes on.
    pub(super) fn into_finding(self, code: &'static str) -> Finding {
        let mut text = self.what.clone();
        for cause in self.causes() {
            text.push_str(": ");
            text.push_str(&cause);
        }
        Finding {
            severity: Severity::Problem,
            code,
            text,
            remedy: self
                .remedy
                .unwrap_or_else(|| "correct the cause".to_owned()),
        }
    }

    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source.as_ref().map(|source| &**source as &dyn Error);
        while let Some(error) = next {
            let of_database = error.downcast_ref::<sqlx::Error>();
            if let Some(said) = of_database.and_then(|error| error.as_database_error()) {
                // Its own text names a line of the server's source.
                causes.push(format!("the database says: {}", said.message()));
                break;
            }
            let text = error.to_string();
            // Some libraries repeat their source in their own text.
            if causes
                .last()
                .is_none_or(|last: &String| !last.contains(&text))
            {
                causes.push(text);
            }
            next = error.source();
        }
        causes
    }

    /// For a program that reads our standard error.
    pub(super) fn json(&self) -> Value {
        json!({
            "error": { "message": self.what, "causes": self.causes(), "remedy": self.remedy }
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        for cause in self.causes() {
            write!(f, "\n  because: {cause}")?;
        }
        match &self.remedy {
            Some(remedy) => write!(f, "\n  to do: {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let remedy = if error.unreadable {
            "name a file that is there and can be read by --config or ONCEWARD_CONFIG; what goes into it: docs/configuration.md"
        } else {
            "the settings are described in docs/configuration.md"
        };
        Self::usage(error.to_string()).remedy(remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_what_why_and_what_to_do() {
        let io = std::io::Error::other("connection refused");

        let failure = Failure::failed("the database did not answer")
            .because(io)
            .remedy("check database.url");

        assert_eq!(
            failure.to_string(),
            "error: the database did not answer\n  because: connection refused\n  to do: check database.url"
        );
        assert_eq!(failure.json()["error"]["causes"][0], "connection refused");
    }
}
