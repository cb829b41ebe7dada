//! What every test has: a database with business rows and the log, a place at a broker, and the ledger over both.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use onceward_testkit::kafka::Kafka;
use onceward_testkit::ledger::{Ledger, Stop, Tap, Verdict, Workload, Written};
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::{Database, Postgres};
use onceward_testkit::sqs::{Gate, Sqs};
use onceward_testkit::{Scratch, unique, wait};
use uuid::Uuid;

use crate::place::Place;
use crate::program::{Program, example};
use crate::writers::Writers;

/// Within this much whatever is to happen next has happened, on a slow machine too.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The most messages that a relay of these tests has read and not confirmed. What is confirmed and not stored yet comes on top of
/// what it may publish again after a kill: which that is, the ledger knows of each message.
pub(crate) const WINDOW: u64 = 600;

/// How a relay differs from the usual.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// The database's URL, when it is not the stage's.
    pub(crate) url: Option<String>,
    /// The broker's address, when it is not the stage's.
    pub(crate) address: Option<String>,
    /// More lines for the stream.
    pub(crate) stream: String,
    /// Topics that have a stream of the relay each, instead of one for all.
    pub(crate) apart: Vec<String>,
    /// The most messages in flight, when it is not [`WINDOW`].
    pub(crate) window: Option<u64>,
    /// Planted bugs, by name.
    pub(crate) faults: &'static str,
    /// Where to end.
    pub(crate) failpoint: String,
    /// For consumers: further variables.
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Changes {
    pub(crate) fn fault(faults: &'static str) -> Self {
        Self {
            faults,
            ..Self::default()
        }
    }

    pub(crate) fn failpoint(failpoint: &str) -> Self {
        Self {
            failpoint: failpoint.to_owned(),
            ..Self::default()
        }
    }

    /// For consumers: one attempt in three fails, and every wait for the next one is in the database.
    pub(crate) fn deferring(self) -> Self {
        self.variable("E2E_FAIL_ONE_IN", "3")
            .variable("E2E_DEFER_AFTER_MS", "0")
    }

    /// For consumers: up to twenty messages in one transaction, and one transaction in eight fails.
    pub(crate) fn in_batches(self) -> Self {
        self.variable("E2E_BATCH", "20")
            .variable("E2E_DELAY_MS", "15")
            .variable("E2E_FAIL_ONE_IN", "8")
    }

    pub(crate) fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }
}

pub(crate) struct Stage {
    pub(crate) log: Database,
    /// The consumer's database, when it is not that of the log.
    pub(crate) elsewhere: Option<Database>,
    pub(crate) ledger: Ledger,
    pub(crate) name: String,
    pub(crate) ttl: &'static str,
    pub(crate) place: Place,
    scratch: Scratch,
    lives: AtomicU32,
}

impl Stage {
    /// A database of `postgres` and a JetStream stream for the topics of this test.
    pub(crate) async fn nats(postgres: &Postgres, nats: &Nats) -> Self {
        Self::nats_with(postgres, nats, &[]).await
    }

    /// As [`nats`](Self::nats), with further streams, each for the subjects `<its name>.>`. They are judged as well.
    pub(crate) async fn nats_with(postgres: &Postgres, nats: &Nats, others: &[&str]) -> Self {
        let name = unique("e2e");
        let config = async_nats::jetstream::stream::Config {
            name: name.clone(),
            subjects: vec![format!("{name}.>")],
            // The least there is: what the broker drops, the ledger cannot see.
            duplicate_window: Duration::from_millis(100),
            ..Default::default()
        };
        let jetstream = async_nats::jetstream::new(nats.client().await);
        for other in others {
            let other = async_nats::jetstream::stream::Config {
                name: (*other).to_owned(),
                subjects: vec![format!("{other}.>")],
                ..config.clone()
            };
            jetstream.create_stream(other).await.unwrap();
        }
        jetstream.create_stream(config).await.unwrap();
        let streams: Vec<&str> = others.iter().copied().chain([name.as_str()]).collect();
        let tap = Tap::nats(nats.url(), &streams);
        let place = Place::Nats {
            url: nats.url().to_owned(),
            stream: name.clone(),
            spread: false,
        };
        Self::new(postgres, name, place, tap).await
    }

    /// Spreads each topic over four subjects, which the members of the consumer share.
    pub(crate) fn spread(mut self) -> Self {
        if let Place::Nats { spread, .. } = &mut self.place {
            *spread = true;
        }
        self
    }

    /// A database of `postgres` and Kafka topics for this test, of three partitions each.
    pub(crate) async fn kafka(postgres: &Postgres, kafka: &Kafka) -> Self {
        let name = unique("e2e");
        let topics = topics(&name);
        for topic in &topics {
            kafka.create_topic(topic, 3, &[]).await;
        }
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        let tap = Tap::kafka(kafka.brokers(), &names);
        let place = Place::Kafka {
            brokers: kafka.brokers().to_owned(),
            topics,
        };
        Self::new(postgres, name, place, tap).await
    }

    /// A database of `postgres` and one queue for the topics of this test, which relays reach through a gate of its own.
    pub(crate) async fn sqs(postgres: &Postgres, sqs: &Sqs, fifo: bool) -> Self {
        let name = unique("e2e");
        let queue = format!("{name}{}", if fifo { ".fifo" } else { "" });
        sqs.create_queue(&queue, &[]).await;
        let gate = Gate::to(sqs.port()).await;
        let tap = Tap::sqs(&gate, &[&queue]);
        let place = Place::Sqs {
            url: sqs.url().to_owned(),
            queue,
            gate,
            order: if fifo { "per_key" } else { "none" },
        };
        let mut stage = Self::new(postgres, name, place, tap).await;
        if !fifo {
            stage.ledger = stage.ledger.unordered();
        }
        stage
    }

    async fn new(postgres: &Postgres, name: String, place: Place, tap: Tap) -> Self {
        let log = postgres.database().await;
        onceward_migrations::run(log.pool()).await.unwrap();
        let ledger = Ledger::open(log.pool(), tap).await.with_fence().await;
        Self {
            log,
            elsewhere: None,
            ledger,
            place,
            scratch: Scratch::new("e2e"),
            lives: AtomicU32::new(0),
            ttl: "2s",
            name,
        }
    }

    /// Has effects judged, written to the same database.
    pub(crate) async fn consumed(mut self) -> Self {
        self.ledger = self.ledger.with_effects(self.log.pool()).await;
        self
    }

    /// Has effects judged, written to a database of another server.
    pub(crate) async fn consumed_at(mut self, postgres: &Postgres) -> Self {
        let elsewhere = postgres.database().await;
        onceward_migrations::run(elsewhere.pool()).await.unwrap();
        self.ledger = self.ledger.with_effects(elsewhere.pool()).await;
        self.elsewhere = Some(elsewhere);
        self
    }

    pub(crate) fn ttl(mut self, ttl: &'static str) -> Self {
        self.ttl = ttl;
        self
    }

    /// Starts a relay. The database knows each life of it under a name of its own.
    pub(crate) fn relay(&self, changes: &Changes) -> Program {
        let life = self.lives.fetch_add(1, Ordering::SeqCst);
        let who = format!("relay_{life}");
        let path = self.scratch.path().join(format!("{who}.toml"));
        std::fs::write(&path, self.configuration(&who, changes)).unwrap();
        let mut command = example("e2e_relay");
        command.arg("--config").arg(&path).arg("relay");
        // A variable of the developer's own shell must not change the test.
        command.env_remove("DATABASE_URL");
        faults(&mut command, changes);
        Program::start(&who, &command)
    }

    /// Runs another command of the same program to its end, and returns what it printed.
    pub(crate) async fn command(&self, arguments: &[&str]) -> String {
        let path = self.scratch.path().join("command.toml");
        std::fs::write(&path, self.configuration("command", &Changes::default())).unwrap();
        let mut command = example("e2e_relay");
        command.arg("--config").arg(&path).args(arguments);
        command.env_remove("DATABASE_URL");
        let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = tokio::time::timeout(SOON, ended).await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?} failed: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn configuration(&self, who: &str, changes: &Changes) -> String {
        let url = changes.url.as_deref().unwrap_or(self.log.url());
        let head = format!(
            "source = \"/e2e\"\n\
             [database]\n\
             url = \"{url}?application_name={who}\"\n\
             [admin]\n\
             listen = \"127.0.0.1:0\"\n\
             [log]\n\
             format = \"text\"\n"
        );
        if changes.apart.is_empty() {
            return head + &self.section("events", &format!("{}.*", self.name), changes);
        }
        let apart = changes.apart.iter().enumerate();
        let sections = apart.map(|(n, topic)| self.section(&format!("events_{n}"), topic, changes));
        head + &sections.collect::<String>()
    }

    fn section(&self, stream: &str, topics: &str, changes: &Changes) -> String {
        format!(
            "[streams.{stream}]\n\
             topics = [\"{topics}\"]\n\
             lease_ttl = \"{ttl}\"\n\
             in_flight_messages = {window}\n\
             route = \"{route}\"\n\
             {more}\n\
             [streams.{stream}.{broker}]\n\
             {section}\n",
            broker = self.place.broker(),
            route = self.place.route(),
            section = self.place.section(changes.address.as_deref()),
            ttl = self.ttl,
            window = changes.window.unwrap_or(WINDOW),
            more = changes.stream,
        )
    }

    /// Starts a member of the consumer.
    pub(crate) fn consumer(&self, changes: &Changes) -> Program {
        let life = self.lives.fetch_add(1, Ordering::SeqCst);
        let database = self.elsewhere.as_ref().unwrap_or(&self.log);
        let url = changes.url.as_deref().unwrap_or(database.url());
        let address = changes.address.as_deref();
        let address = address.unwrap_or(self.place.address());
        let mut command = example("e2e_consumer");
        command
            .env("E2E_DATABASE_URL", url)
            .env("E2E_BROKER", self.place.broker())
            .env("E2E_ADDRESS", address)
            .env("E2E_TOPICS", self.place.reads())
            .env("E2E_SESSION_MS", "6000")
            .env("E2E_CONSUMER", &self.name)
            .env("RUST_LOG", "info");
        for (name, value) in &changes.variables {
            command.env(name, value);
        }
        faults(&mut command, changes);
        Program::start(&format!("consumer_{life}"), &command)
    }

    pub(crate) fn topics(&self) -> Vec<String> {
        topics(&self.name)
    }

    /// A workload for the topics of this test.
    pub(crate) fn workload(&self) -> Workload {
        Workload {
            topics: self.topics(),
            ..Workload::default()
        }
    }

    /// Begins to write, until told to stop or until the workload is done.
    pub(crate) fn write(&self, workload: Workload) -> Writers {
        Writers::begin(self.log.url(), workload)
    }

    /// Writes a whole workload.
    pub(crate) async fn write_all(&self, workload: Workload) -> Written {
        workload.run(self.log.url(), Stop::new()).await
    }

    /// Who holds the stream's lease now, of these.
    pub(crate) async fn holder<'a>(&self, relays: &[&'a Program]) -> Option<&'a Program> {
        let statement = "
            select owner
            from onceward.streams
            where stream = 'events' and lease_token is not null and lease_until > clock_timestamp()";
        let owner: String = sqlx::query_scalar(statement)
            .fetch_optional(self.log.pool())
            .await
            .ok()??;
        let holds = |relay: &&&Program| owner.ends_with(&format!("#{}", relay.pid()));
        relays.iter().find(holds).copied()
    }

    /// Waits until one of these holds the lease.
    pub(crate) async fn wait_for_holder<'a>(&self, relays: &[&'a Program]) -> &'a Program {
        wait::until(SOON, "a relay to hold the lease", || self.holder(relays)).await
    }

    /// Waits until everything has arrived and taken effect, ends the programs in good order, and judges: it must be green.
    pub(crate) async fn must_be_green(&self, programs: &[&Program]) -> Verdict {
        let verdict = self.ledger.verdict_within(SOON).await;
        self.assert_green(&verdict).await;
        for program in programs {
            program.term();
        }
        for program in programs {
            program.stop_was_good().await;
        }
        // Once more, now that nothing moves any more.
        let verdict = self.ledger.verdict().await;
        self.assert_green(&verdict).await;
        verdict
    }

    async fn assert_green(&self, verdict: &Verdict) {
        let green = verdict.is_green();
        let letters = if green {
            Vec::new()
        } else {
            self.letters().await
        };
        assert!(green, "{verdict}\ndead letters: {letters:?}");
    }

    /// Reason and message of each dead letter.
    pub(crate) async fn letters(&self) -> Vec<(String, Uuid)> {
        let database = self.elsewhere.as_ref().unwrap_or(&self.log);
        sqlx::query_as("select reason, message_id from onceward.dead_letters order by id")
            .fetch_all(database.pool())
            .await
            .unwrap()
    }

    /// Whether a message is handled alone with which a member has died before while it was.
    pub(crate) async fn has_killed_alone(&self) -> bool {
        let database = self.elsewhere.as_ref().unwrap_or(&self.log);
        sqlx::query_scalar(
            "select exists (select from onceward.starts where alone and crashes > 0)",
        )
        .fetch_one(database.pool())
        .await
        .unwrap()
    }

    /// Lets the broker take messages of at most so many bytes, or of any size again.
    pub(crate) async fn limit_messages(&self, bytes: Option<i32>) {
        self.place.limit(bytes).await;
    }
}

fn topics(name: &str) -> Vec<String> {
    vec![format!("{name}.orders"), format!("{name}.payments")]
}

fn faults(command: &mut std::process::Command, changes: &Changes) {
    command.env("ONCEWARD_FAULTS", changes.faults);
    match changes.failpoint.as_str() {
        "" => command.env_remove("ONCEWARD_FAILPOINT"),
        failpoint => command.env("ONCEWARD_FAILPOINT", failpoint),
    };
}
