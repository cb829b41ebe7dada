//! What must be right before anything is published.

use onceward::schema::{self, Duty, Expected, Finding, Severity};
use onceward_core::BoxError;
use tracing::{info, warn};

use super::super::database::Reached;
use super::super::doctor::{self, destinations};
use super::super::failure::Failure;
use crate::config::Config;

/// Refuses a database on which the promise would not hold.
pub(super) async fn database(config: &Config, reached: &Reached) -> Result<(), Failure> {
    let name = &config.database.schema;
    let looked = async {
        let mut connection = reached.pool.acquire().await?;
        let facts = schema::inspect(&mut connection, name, Duty::Relay).await?;
        Ok::<_, BoxError>(facts)
    };
    let facts = reached.ask("looking at the database", looked).await?;
    let expected = Expected {
        known_version: onceward_migrations::LATEST,
        standbys: doctor::standbys(&config.streams),
        ..Expected::default()
    };
    let mut findings = schema::judge(&facts, &expected);
    findings.extend(doctor::ring::holds(
        config.retention,
        facts.settings.as_ref(),
    ));
    refuse_problems("the database is not fit to publish from", findings)
}

/// Refuses if a destination cannot be used now.
pub(super) async fn destinations(config: &Config, reached: &Reached) -> Result<(), Failure> {
    let topics = doctor::topics(&config.database.schema, reached).await;
    let asked = destinations::ask(&config.streams, &topics).await;
    let findings = asked.iter().flat_map(destinations::findings).collect();
    refuse_problems(
        "a destination cannot be used, and --fail-fast was asked for",
        findings,
    )
}

/// Logs what is worth knowing, and fails with all problems at once.
fn refuse_problems(what: &str, findings: Vec<Finding>) -> Result<(), Failure> {
    let mut problems = Vec::new();
    for finding in findings {
        let Finding {
            severity,
            code,
            text,
            remedy,
        } = finding;
        match severity {
            Severity::Note => info!(code, finding = text, remedy, "worth knowing"),
            Severity::Warning => warn!(code, finding = text, remedy, "worth knowing"),
            Severity::Problem => problems.push((text, remedy)),
        }
    }
    let mut remedies: Vec<&str> = problems.iter().map(|(_, remedy)| remedy.as_str()).collect();
    remedies.dedup();
    let remedies = remedies.join("; ");
    let texts: Vec<&str> = problems.iter().map(|(text, _)| text.as_str()).collect();
    match texts[..] {
        [] => Ok(()),
        [..] => Err(Failure::failed(format!("{what}: {}", texts.join("; "))).remedy(remedies)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, text: &str) -> Finding {
        Finding {
            severity,
            code: "code",
            text: text.to_owned(),
            remedy: format!("mend {text}"),
        }
    }

    #[test]
    fn a_problem_is_refused_and_a_warning_is_not() {
        let warning = || finding(Severity::Warning, "slow");

        assert!(refuse_problems("unfit", vec![warning()]).is_ok());
        let refused = refuse_problems(
            "unfit",
            vec![warning(), finding(Severity::Problem, "broken")],
        );
        assert_eq!(
            refused.unwrap_err().to_string(),
            "error: unfit: broken\n  to do: mend broken"
        );
    }
}
