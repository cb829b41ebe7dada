//! Everything that runs in the demo: servers, one order service, two relays, two billing consumers.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use onceward_testkit::free_port;
use onceward_testkit::process::Child;

use crate::Failure;
use crate::books::Books;
use crate::crew::{Member, Role};
use crate::http::Connection;
use crate::plot::Step;
use crate::servers::{QUEUE, RunningBroker, Servers};
use crate::settings::{Broker, Settings};

const START_TAKES_AT_MOST: Duration = Duration::from_secs(30);
const MIGRATE_TAKES_AT_MOST: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_millis(50);
/// One attempt in so many fails at the billing service, so that retries show.
const BILLING_FAILS_ONE_IN: &str = "200";

/// What runs. Dropped in this order: the processes first, then the servers under them.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) service: SocketAddr,
    order_service: Member,
    relays: Vec<Member>,
    consumers: Vec<Member>,
    servers: Servers,
}

/// What a step did.
#[derive(Debug)]
pub(crate) struct Done {
    /// For people.
    pub(crate) text: String,
    /// Those who stood by when somebody was killed: one of them takes over.
    pub(crate) heirs: Vec<String>,
}

impl Stage {
    /// Starts everything. Says what it does through `say`.
    pub(crate) async fn set(settings: &Settings, say: impl Fn(&str)) -> Result<Self, Failure> {
        let servers = Servers::start(settings.broker, &say).await?;
        let config = write_config(settings, &servers)?;

        say("onceward migrate");
        for url in [&servers.shop_url, &servers.billing_url] {
            migrate(&config, url).await?;
        }

        say("starting the order service, two relays and two billing consumers");
        let service = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = program("order-service")?;
        command
            .env("DATABASE_URL", &servers.shop_url)
            .env("LISTEN", service.to_string());
        let order_service = Member::start("order-service", command, None);
        let billing = |n| consumer(settings.broker, &servers, &format!("billing-{n}"));
        Ok(Self {
            service,
            order_service,
            relays: vec![relay(&config, "relay-1")?, relay(&config, "relay-2")?],
            consumers: vec![billing(1)?, billing(2)?],
            servers,
        })
    }

    pub(crate) fn books(&self) -> Books {
        Books::of(&self.servers)
    }

    /// Looks at what everybody does.
    ///
    /// # Errors
    /// When one has ended that nobody has killed.
    pub(crate) async fn look(&mut self) -> Result<(), Failure> {
        for member in self.relays.iter_mut().chain(&mut self.consumers) {
            member.look().await;
        }
        match self.everybody().find_map(Member::ended) {
            Some(ended) => Err(ended.into()),
            None => Ok(()),
        }
    }

    /// Names and roles, relays first.
    pub(crate) fn roles(&self) -> Vec<(String, Role)> {
        let members = self.relays.iter().chain(&self.consumers);
        members
            .map(|member| (member.name.clone(), member.role))
            .collect()
    }

    /// The relay that publishes.
    pub(crate) fn publisher(&self) -> Option<&Member> {
        self.relays.iter().find(|relay| relay.role == Role::Works)
    }

    /// Duplicate deliveries that the consumers have dropped, as they count them.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of deliveries, as metrics give them"
    )]
    pub(crate) fn duplicates(&self) -> u64 {
        self.consumers.iter().map(Member::duplicates).sum::<f64>() as u64
    }

    /// Does it.
    pub(crate) fn perform(&mut self, step: Step) -> Option<Done> {
        match step {
            Step::KillRelay => kill(&mut self.relays),
            Step::KillConsumer => kill(&mut self.consumers),
            Step::RestartRelay => start_again(&mut self.relays),
            Step::RestartConsumer => start_again(&mut self.consumers),
        }
    }

    /// Stops everybody in good order, those first who feed the others. The names of those that had to be killed, or
    /// ended with an error.
    pub(crate) async fn stop(&mut self) -> Vec<String> {
        let mut unclean = Vec::new();
        for member in self.members_mut() {
            if !member.stop().await {
                unclean.push(member.name.clone());
            }
        }
        unclean
    }

    /// Leaves what everybody has printed in `directory`.
    pub(crate) fn write_logs(&mut self, directory: &Path) {
        for member in self.members_mut() {
            member.write_log(directory);
        }
    }

    fn everybody(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.order_service)
            .chain(&self.relays)
            .chain(&self.consumers)
    }

    fn members_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        std::iter::once(&mut self.order_service)
            .chain(&mut self.relays)
            .chain(&mut self.consumers)
    }

    /// Waits until orders are taken, a relay holds the lease and the billing service has made its table.
    pub(crate) async fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let begin = Instant::now();
        let books = self.books();
        loop {
            self.look().await?;
            let publishes = self.relays.iter().any(|relay| relay.role == Role::Works);
            if publishes && self.takes_orders().await && books.progress().await.is_ok() {
                return Ok(());
            }
            if begin.elapsed() > START_TAKES_AT_MOST {
                return Err(
                    format!("not everything was ready after {START_TAKES_AT_MOST:?}").into(),
                );
            }
            tokio::time::sleep(REST).await;
        }
    }

    async fn takes_orders(&self) -> bool {
        let Ok(mut connection) = Connection::open(self.service).await else {
            return false;
        };
        let answer = connection.get("/healthz").await;
        answer.is_ok_and(|answer| answer.status == 200)
    }
}

/// Kills the one that worked last; nobody, if nobody has worked yet.
fn kill(crew: &mut [Member]) -> Option<Done> {
    let victim = crew
        .iter_mut()
        .filter(|member| member.worked_at.is_some())
        .max_by_key(|member| member.worked_at)?;
    victim.kill();
    let text = format!("kill -9 {}, which was at work", victim.name);
    let stand_by = |member: &&Member| member.role != Role::Killed && member.worked_at.is_none();
    let heirs = crew.iter().filter(stand_by);
    Some(Done {
        text,
        heirs: heirs.map(|member| member.name.clone()).collect(),
    })
}

fn start_again(crew: &mut [Member]) -> Option<Done> {
    let member = crew.iter_mut().find(|member| member.role == Role::Killed)?;
    member.start_again();
    Some(Done {
        text: format!("{} is started again", member.name),
        heirs: Vec::new(),
    })
}

/// The directory of the run, with the relay's configuration in it.
fn write_config(settings: &Settings, servers: &Servers) -> Result<PathBuf, Failure> {
    fs::create_dir_all(&settings.dir)?;
    let path = settings.dir.join("onceward.toml");
    let text = format!(
        "# Written by the demo. Each relay gets a port of its own for metrics through ONCEWARD__ADMIN__LISTEN.\n\
         source = \"/demo/orders\"\n\n\
         [database]\nurl = {:?}\n\n\
         [streams.events]\ntopics = [\"orders.*\"]\n\
         lease_ttl = \"3s\"          # a shorter one than by default, so that a takeover can be watched\n\n{}",
        servers.shop_url,
        servers.broker.section()
    );
    fs::write(&path, text)?;
    Ok(path.canonicalize()?)
}

async fn migrate(config: &Path, url: &str) -> Result<(), Failure> {
    let mut command = program("onceward")?;
    command.args(["migrate", "--config"]).arg(config);
    command.env("ONCEWARD__DATABASE__URL", url);
    let child = Child::spawn("migrate", &command);
    let status = child.wait(MIGRATE_TAKES_AT_MOST).await;
    if status.success() {
        Ok(())
    } else {
        Err(format!(
            "onceward migrate failed: {}{}",
            child.stdout(),
            child.stderr()
        )
        .into())
    }
}

fn relay(config: &Path, name: &str) -> Result<Member, Failure> {
    let metrics = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = program("onceward")?;
    command.args(["relay", "--config"]).arg(config);
    command.env("ONCEWARD__ADMIN__LISTEN", metrics.to_string());
    Ok(Member::start(name, command, Some(metrics)))
}

fn consumer(broker: Broker, servers: &Servers, name: &str) -> Result<Member, Failure> {
    let metrics = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut command = program("billing")?;
    command
        .env("DATABASE_URL", &servers.billing_url)
        .env("BROKER", broker.word())
        .env("METRICS_LISTEN", metrics.to_string())
        .env("FAIL_ONE_IN", BILLING_FAILS_ONE_IN);
    match &servers.broker {
        RunningBroker::Nats(nats) => command.env("NATS_URL", nats.url()),
        RunningBroker::Kafka(kafka) => command.env("KAFKA_BROKERS", kafka.brokers()),
        RunningBroker::Sqs { sqs, .. } => command
            .env("AWS_ENDPOINT_URL", sqs.url())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "demo")
            .env("AWS_SECRET_ACCESS_KEY", "demo")
            .env("QUEUE", QUEUE),
    };
    Ok(Member::start(name, command, Some(metrics)))
}

/// One of the programs beside this one, without settings of the user's own in its environment.
fn program(name: &str) -> Result<Command, Failure> {
    let own = std::env::current_exe()?;
    let path = own.with_file_name(name);
    if !path.exists() {
        return Err(format!("there is no program {}: run `make demo`", path.display()).into());
    }
    let mut command = Command::new(path);
    command.env_remove("DATABASE_URL").env("NO_COLOR", "1");
    for (variable, _) in std::env::vars_os() {
        if variable
            .to_str()
            .is_some_and(|name| name.starts_with("ONCEWARD__"))
        {
            command.env_remove(variable);
        }
    }
    Ok(command)
}
