//! `onceward doctor`: looks at everything that the promise depends on, and says what to do.

pub(super) mod destinations;
mod remedies;
pub(super) mod ring;

use clap::{Args, ValueEnum};
use onceward::schema::{self, ConfiguredStream, Duty, Expected, Facts, Finding, Severity};
use onceward_core::{BoxError, Schema, Topic};
use serde::Serialize;

use super::database::{self, Reached};
use super::failure::Failure;
use super::output::plain;
use super::{Context, progress, rights};
use crate::config::StreamConfig;
use crate::settings::PublishAfter;
use destinations::Destination;

/// How many messages of each lane are looked at for their topics.
const NEWEST: u32 = 10_000;

/// Look at the database and the destinations, and say what to do
///
/// Changes nothing. Exits with 1 if something is wrong; warnings and notes alone exit with 0.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  onceward doctor
  onceward doctor --duty administer         with the database user of an operator
  onceward doctor --duty consume            with that of a service that consumes
  onceward doctor --json | jq '.findings[] | select(.severity == \"problem\")'")]
pub(super) struct Doctor {
    /// What the database user is to be able to do
    #[arg(long, value_enum, default_value_t = As::Relay)]
    duty: As,
    /// Leave the destinations alone
    #[arg(long)]
    no_destinations: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum As {
    /// Publish
    Relay,
    /// Consume
    Consume,
    /// Look at everything and decide on what is parked or dead
    Administer,
    /// Enqueue
    Write,
}

#[derive(Debug, Serialize)]
struct Answer {
    healthy: bool,
    server: Option<Server>,
    findings: Vec<Shown>,
    destinations: Vec<Destination>,
}

#[derive(Debug, Serialize)]
struct Server {
    version: String,
    schema: String,
    schema_version: Option<i32>,
    user: String,
}

#[derive(Debug, Serialize)]
struct Shown {
    severity: &'static str,
    code: String,
    text: String,
    remedy: String,
}

impl Doctor {
    /// The role for the duty that was asked for.
    pub(super) fn role(&self) -> &'static str {
        Duty::from(self.duty).role()
    }

    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        progress(context, "looking at the database");
        let (facts, topics, mut findings) = self.database(context).await?;
        let destinations = if self.no_destinations {
            Vec::new()
        } else {
            progress(context, "asking the destinations");
            destinations::ask(&context.config.streams, &topics).await
        };
        findings.extend(destinations.iter().flat_map(destinations::findings));
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let problems = findings
            .iter()
            .filter(|f| f.severity == Severity::Problem)
            .count();
        let answer = Answer {
            healthy: problems == 0,
            server: facts.as_ref().map(Server::from),
            findings: findings.iter().map(Shown::from).collect(),
            destinations,
        };
        context.output.answer(&answer, people)?;
        match problems {
            0 => Ok(()),
            1 => Err(Failure::failed("1 problem was found")),
            count => Err(Failure::failed(format!("{count} problems were found"))),
        }
    }

    /// What the database says, the topics in it, and what is wrong with it. That it cannot be reached is a finding.
    async fn database(
        &self,
        context: &Context,
    ) -> Result<(Option<Facts>, Vec<Topic>, Vec<Finding>), Failure> {
        let config = &context.config.database;
        // Not being told where the database is, is no finding about it.
        database::options(config, "onceward doctor")?;
        let looked = match database::reach(config, "onceward doctor").await {
            Ok(reached) => self.look(context, &reached).await,
            Err(failure) => Err(failure),
        };
        match looked {
            Ok((facts, topics)) => {
                let mut findings = schema::judge(&facts, &self.expected(context));
                findings.extend(schema::unread(&facts, &topics));
                findings.extend(ring::holds(
                    context.config.retention,
                    facts.settings.as_ref(),
                ));
                findings.extend(self.slots(context, &facts).await);
                Ok((Some(facts), topics, findings))
            }
            Err(failure) => {
                let failure = rights::explain(failure, Some(self.role()), config);
                Ok((None, Vec::new(), vec![failure.into_finding("database")]))
            }
        }
    }

    async fn look(
        &self,
        context: &Context,
        reached: &Reached,
    ) -> Result<(Facts, Vec<Topic>), Failure> {
        let name = &context.config.database.schema;
        let looked = async {
            let mut connection = reached.pool.acquire().await?;
            let facts = schema::inspect(&mut connection, name, self.duty.into()).await?;
            Ok::<_, BoxError>(facts)
        };
        let facts = reached.ask("looking at the database", looked).await?;
        Ok((facts, topics(name, reached).await))
    }
}

/// The topics of the newest messages. Who may not read the log is told so by the findings; then there are none.
pub(super) async fn topics(name: &Schema, reached: &Reached) -> Vec<Topic> {
    let read = async {
        let mut connection = reached.pool.acquire().await?;
        let topics = schema::recent_topics(&mut connection, name, NEWEST).await?;
        Ok::<_, BoxError>(topics)
    };
    let texts = reached
        .ask("reading topics", read)
        .await
        .unwrap_or_default();
    let topics = texts.iter().map(|text| Topic::try_from(text.as_str()));
    topics.filter_map(Result::ok).collect()
}

impl Doctor {
    /// What keeps slots from being emptied. A database that is not fit to be asked has been found out already.
    async fn slots(&self, context: &Context, facts: &Facts) -> Vec<Finding> {
        let asks = match self.duty {
            As::Relay => {
                facts.version == Some(onceward_migrations::LATEST) && !facts.server.standby
            }
            As::Consume | As::Administer | As::Write => false,
        };
        if !asks {
            return Vec::new();
        }
        let looked = match database::admin(context, "onceward doctor").await {
            Ok(mut admin) => admin
                .inspect_slots(context.config.retention)
                .await
                .map_err(database::failed("looking at the slots of the log")),
            Err(failure) => Err(failure),
        };
        match looked {
            Ok(reports) => ring::kept(&reports, &facts.streams),
            Err(failure) => {
                let failure = rights::explain(failure, Some(self.role()), &context.config.database);
                vec![failure.into_finding("log")]
            }
        }
    }

    fn expected(&self, context: &Context) -> Expected {
        let streams = &context.config.streams;
        let configured = |stream: &StreamConfig| ConfiguredStream {
            name: stream.settings.name.clone(),
            topics: stream.settings.topics.clone(),
        };
        let configured: Vec<ConfiguredStream> = streams.iter().map(configured).collect();
        Expected {
            known_version: onceward_migrations::LATEST,
            // A configuration without streams, as of an operator, knows nothing of them.
            streams: (!configured.is_empty()).then_some(configured),
            // Only who publishes has to see how far they are.
            standbys: match self.duty {
                As::Relay => standbys(streams),
                As::Consume | As::Administer | As::Write => Vec::new(),
            },
            ..Expected::default()
        }
    }
}

/// The standbys that streams wait for before they publish.
pub(super) fn standbys(streams: &[StreamConfig]) -> Vec<String> {
    let named = |stream: &StreamConfig| match &stream.settings.publish_after {
        PublishAfter::Replicated(standby) => Some(standby.clone()),
        PublishAfter::Flushed | PublishAfter::Visible => None,
    };
    let mut standbys: Vec<String> = streams.iter().filter_map(named).collect();
    standbys.sort();
    standbys.dedup();
    standbys
}

impl From<As> for Duty {
    fn from(duty: As) -> Self {
        match duty {
            As::Relay => Self::Relay,
            As::Consume => Self::Consume,
            As::Administer => Self::Administer,
            As::Write => Self::Write,
        }
    }
}

impl From<&Facts> for Server {
    fn from(facts: &Facts) -> Self {
        Self {
            version: facts.server.version_text.clone(),
            schema: facts.schema.to_string(),
            schema_version: facts.version,
            user: facts.server.user.clone(),
        }
    }
}

impl From<&Finding> for Shown {
    fn from(finding: &Finding) -> Self {
        Self {
            severity: match finding.severity {
                Severity::Note => "note",
                Severity::Warning => "warning",
                Severity::Problem => "problem",
            },
            code: finding.code.to_owned(),
            text: finding.text.clone(),
            remedy: finding.remedy.clone(),
        }
    }
}

fn people(answer: &Answer) -> String {
    let mut text = String::new();
    if let Some(server) = &answer.server {
        let version = server
            .schema_version
            .map_or("-".to_owned(), |v| v.to_string());
        text.push_str(&format!(
            "PostgreSQL {}, schema {} at version {version}, user {}\n",
            server.version, server.schema, server.user
        ));
    }
    for destination in &answer.destinations {
        text.push_str(&destinations::line(destination));
    }
    for finding in &answer.findings {
        let (severity, what, remedy) = (
            finding.severity,
            plain(&finding.text),
            plain(&finding.remedy),
        );
        text.push_str(&format!("\n{severity}: {what}\n  to do: {remedy}\n"));
    }
    if answer.findings.is_empty() {
        text.push_str("\nnothing is wrong\n");
    }
    text
}
