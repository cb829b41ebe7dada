//! `onceward relay` as a user runs it: beside a real database and a real broker.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helper fails the test"
)]

mod common;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use common::Shell;
use futures_util::StreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use onceward_testkit::kafka::Kafka;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::{Database, Options, Postgres};
use onceward_testkit::{free_port, unique, wait};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::task::JoinHandle;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

/// A relay that runs as a process of its own, its admin endpoints on whatever port was free.
struct Running {
    child: Child,
    admin: SocketAddr,
    log: JoinHandle<String>,
}

/// What a relay left behind.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    log: String,
}

impl Running {
    async fn start(shell: &Shell) -> Self {
        let mut command = shell.command(&["relay"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut log = String::new();
        let mut admin = None;
        while admin.is_none() {
            let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap();
            let line = line.unwrap_or_else(|| panic!("the relay ended: {log}"));
            let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            admin = event["address"]
                .as_str()
                .map(|address| address.parse().unwrap());
            log.push_str(&line);
            log.push('\n');
        }
        let log = tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                log.push_str(&line);
                log.push('\n');
            }
            log
        });
        let admin = admin.unwrap();
        Self { child, admin, log }
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut connection = TcpStream::connect(self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn until_answer(&self, path: &str, part: &str) -> String {
        wait::until(SOON, &format!("{part:?} at {path}"), || async {
            self.get(path).await.filter(|answer| answer.contains(part))
        })
        .await
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().unwrap();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    async fn ended(mut self) -> Ended {
        let status = timeout(SOON, self.child.wait()).await.unwrap().unwrap();
        let log = self.log.await.unwrap();
        Ended {
            code: status.code(),
            log,
        }
    }
}

async fn migrated() -> Database {
    let database = Postgres::shared().await.database().await;
    Shell::with_database(database.url()).ok(&["migrate"]).await;
    database
}

fn shell(database: &Database, topic: &str, nats: &str) -> Shell {
    let text = format!(
        r#"
        source = "/shop/orders"
        [admin]
        listen = "127.0.0.1:0"
        [streams.events]
        topics = ["{topic}"]
        lease_ttl = "2s"
        [streams.events.nats]
        servers = "{nats}"
        "#
    );
    Shell::with_config(&text).variable("DATABASE_URL", database.url())
}

async fn enqueue(database: &Database, topic: &str) {
    sqlx::query("select onceward.enqueue($1, 'hello', 'k')")
        .bind(topic)
        .execute(database.pool())
        .await
        .unwrap();
}

/// A stream for the subject, and whatever is published to it from now on.
async fn subscribe(nats: &Nats, subject: &str) -> async_nats::Subscriber {
    subscribe_up_to(nats, subject, -1).await
}

/// The same for a stream that takes messages of so many bytes.
async fn subscribe_up_to(nats: &Nats, subject: &str, bytes: i32) -> async_nats::Subscriber {
    let client = nats.client().await;
    let stream = async_nats::jetstream::stream::Config {
        name: subject.to_owned(),
        subjects: vec![subject.to_owned()],
        max_message_size: bytes,
        ..Default::default()
    };
    let jetstream = async_nats::jetstream::new(client.clone());
    jetstream.create_stream(stream).await.unwrap();
    client.subscribe(subject.to_owned()).await.unwrap()
}

#[tokio::test]
async fn a_relay_publishes_and_ends_with_0_when_told_to_stop() {
    let database = migrated().await;
    let nats = Nats::shared().await;
    let topic = unique("orders");
    let mut tap = subscribe(nats, &topic).await;
    let shell = shell(&database, &topic, nats.url());

    let relay = Running::start(&shell).await;
    enqueue(&database, &topic).await;
    let message = timeout(SOON, tap.next()).await.unwrap().unwrap();
    relay.until_answer("/readyz", "200 OK").await;
    let metrics = relay
        .until_answer(
            "/metrics",
            "onceward_published_total{stream=\"events\",lane=\"standard\"} 1",
        )
        .await;
    let status = shell.json(&["status"]).await;
    let doctor = shell.json(&["doctor"]).await;
    relay.signal(Signal::SIGTERM);
    let output = relay.ended().await;

    assert_eq!(&message.payload[..], b"hello");
    assert!(
        metrics.contains("onceward_lease_held{stream=\"events\"} 1"),
        "{metrics}"
    );
    assert_eq!(status["streams"][0]["lease"], "held", "{status}");
    assert_eq!(
        doctor["destinations"][0]["routes"][0]["route"],
        topic.as_str(),
        "{doctor}"
    );
    assert_eq!(output.code, Some(0), "{output:?}");
    let log = output.log;
    let lines = log.lines().map(serde_json::from_str::<serde_json::Value>);
    assert!(
        lines.clone().all(|line| line.is_ok()),
        "not a terminal, so not JSON: {log}"
    );
    let status = shell.json(&["status"]).await;
    assert_ne!(status["streams"][0]["lease"], "held", "{status}");
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_waited_for_and_said_so() {
    let database = migrated().await;
    let nowhere = free_port();
    let shell = shell(
        &database,
        "orders.created",
        &format!("nats://127.0.0.1:{nowhere}"),
    );

    let relay = Running::start(&shell).await;
    enqueue(&database, "orders.created").await;
    let status = relay.until_answer("/status", "unavailable").await;
    let live = relay.until_answer("/livez", "200 OK").await;
    let ready = relay.until_answer("/readyz", "200 OK").await;
    relay.signal(Signal::SIGINT);
    let output = relay.ended().await;

    assert!(status.contains("destination_paused"), "{status}");
    assert!(live.contains("ok") && ready.contains("ok"));
    assert_eq!(output.code, Some(0), "{output:?}");
    let log = output.log;
    assert!(
        log.contains("will try again") || log.contains("will retry"),
        "{log}"
    );
}

#[tokio::test]
async fn asked_to_fail_fast_it_ends_with_1_when_the_broker_is_not_there() {
    let database = migrated().await;
    let nowhere = free_port();
    let shell = shell(
        &database,
        "orders.created",
        &format!("nats://127.0.0.1:{nowhere}"),
    );

    let answer = shell.run(&["relay", "--fail-fast"]).await;

    answer.assert_refused(1, &["--fail-fast", "stream events (nats)"]);
}

#[tokio::test]
async fn a_relay_without_streams_a_port_or_a_database_does_not_start() {
    let database = migrated().await;
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();

    let idle = Shell::with_database(database.url()).run(&["relay"]).await;
    let blocked = shell(&database, "orders", "nats://127.0.0.1:1")
        .variable("ONCEWARD__ADMIN__LISTEN", &format!("127.0.0.1:{port}"))
        .run(&["relay"])
        .await;

    idle.assert_refused(2, &["no stream is configured"]);
    blocked.assert_refused(1, &["admin.listen", &port.to_string()]);
    let elsewhere = format!("postgres://shop:hunter2@127.0.0.1:{}/shop", free_port());
    shell(&database, "orders", "nats://127.0.0.1:1")
        .variable("ONCEWARD__DATABASE__URL", &elsewhere)
        .run(&["relay"])
        .await
        .assert_refused(1, &["no database answers", "database.url"]);
}

#[tokio::test]
async fn a_database_on_which_the_promise_would_not_hold_is_refused() {
    let database = migrated().await;
    sqlx::raw_sql("alter table onceward.messages enable row level security")
        .execute(database.pool())
        .await
        .unwrap();

    let answer = shell(&database, "orders", "nats://127.0.0.1:1")
        .run(&["relay"])
        .await;

    answer.assert_refused(1, &["row security", "disable row level security"]);
}

#[tokio::test]
async fn a_retention_that_the_ring_cannot_hold_is_refused() {
    let database = migrated().await;
    let shell = shell(&database, "orders", "nats://127.0.0.1:1")
        .variable("ONCEWARD__RETENTION__MESSAGES", "10d");

    shell
        .run(&["relay"])
        .await
        .assert_refused(1, &["10days", "12 slots", "retention.messages"]);
}

#[tokio::test]
async fn a_standby_is_refused() {
    let primary = Postgres::start(Options::default()).await;
    let database = primary.database().await;
    Shell::with_database(database.url()).ok(&["migrate"]).await;
    let standby = primary.standby("copy").await;
    let there = Shell::with_database(&standby.url(database.name()));
    wait::until_true(SOON, "the schema to reach the standby", || async {
        there.run(&["migrate", "--check"]).await.code == 0
    })
    .await;

    let answer = shell(&database, "orders", "nats://127.0.0.1:1")
        .variable("ONCEWARD__DATABASE__URL", &standby.url(database.name()))
        .run(&["relay"])
        .await;

    answer.assert_refused(1, &["standby", "connect to the primary"]);
}

/// The statements that the documentation gives for publishing the whole log anew.
fn publish_anew() -> &'static str {
    let page = include_str!("../../docs/recovery.md");
    let (_, section) = page.split_once("## Publish anew").unwrap();
    let (_, code) = section.split_once("```sql").unwrap();
    code.split_once("```").unwrap().0
}

#[tokio::test]
async fn a_restored_dump_is_refused_and_the_documented_way_out_publishes_all_of_it() {
    let database = migrated().await;
    let nats = Nats::shared().await;
    let topic = unique("orders");
    let mut tap = subscribe(nats, &topic).await;
    enqueue(&database, &topic).await;
    enqueue(&database, &topic).await;
    // As after pg_dump and restore: rows of another cluster's transactions, cursors of another cluster.
    sqlx::raw_sql("update onceward.messages set txid = '900000000000'")
        .execute(database.pool())
        .await
        .unwrap();
    let shell = shell(&database, &topic, nats.url());

    let refused = shell.run(&["relay"]).await;
    sqlx::raw_sql(publish_anew())
        .execute(database.pool())
        .await
        .unwrap();
    shell.ok(&["doctor"]).await;
    let relay = Running::start(&shell).await;

    refused.assert_refused(1, &["docs/recovery.md#future-transactions"]);
    for _ in 0..2 {
        timeout(SOON, tap.next()).await.unwrap().unwrap();
    }
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.ended().await.code, Some(0));
}

#[tokio::test]
async fn another_cluster_is_refused_and_after_an_upgrade_the_documented_statement_lets_it_go_on() {
    let database = migrated().await;
    let nats = Nats::shared().await;
    let topic = unique("orders");
    let mut tap = subscribe(nats, &topic).await;
    let shell = shell(&database, &topic, nats.url());
    enqueue(&database, &topic).await;
    let before = Running::start(&shell).await;
    timeout(SOON, tap.next()).await.unwrap().unwrap();
    before.signal(Signal::SIGTERM);
    before.ended().await;
    sqlx::raw_sql("update onceward.streams set system_identifier = 4711")
        .execute(database.pool())
        .await
        .unwrap();
    enqueue(&database, &topic).await;

    let refused = shell.run(&["relay"]).await;
    sqlx::raw_sql("update onceward.streams set system_identifier = null")
        .execute(database.pool())
        .await
        .unwrap();
    let after = Running::start(&shell).await;

    refused.assert_refused(1, &["docs/recovery.md#another-cluster"]);
    timeout(SOON, tap.next()).await.unwrap().unwrap();
    after.signal(Signal::SIGTERM);
    assert_eq!(after.ended().await.code, Some(0));
}

#[tokio::test]
async fn what_the_broker_refuses_is_parked_changed_and_published_from_the_command_line() {
    let database = migrated().await;
    let nats = Nats::shared().await;
    let topic = unique("orders");
    let mut tap = subscribe_up_to(nats, &topic, 1_000).await;
    let shell = shell(&database, &topic, nats.url());
    let relay = Running::start(&shell).await;

    sqlx::query("select onceward.enqueue($1, convert_to(repeat('x', 5000), 'UTF8'), 'k')")
        .bind(&topic)
        .execute(database.pool())
        .await
        .unwrap();
    let number = wait::until(SOON, "the message to be parked", || async {
        let list = shell.json(&["parked", "list"]).await;
        list["parked"][0]["seq"].as_i64()
    })
    .await
    .to_string();
    let status = shell.json(&["status"]).await;
    shell
        .ok(&[
            "parked",
            "edit",
            "events",
            &number,
            "--payload",
            "smaller",
            "--replay",
        ])
        .await;
    wait::until_true(SOON, "the changed message", || async {
        shell.json(&["parked", "show", "events", &number]).await["state"] == "published"
    })
    .await;

    assert_eq!(status["streams"][0]["parked"], 1, "{status}");
    let published = async {
        while let Some(message) = tap.next().await {
            if &message.payload[..] == b"smaller" {
                return;
            }
        }
    };
    timeout(SOON, published).await.unwrap();
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_topic_that_the_broker_lacks_is_named_by_status_and_by_doctor() {
    let database = migrated().await;
    let nats = Nats::shared().await;
    let topic = unique("nowhere");
    let shell = shell(&database, &topic, nats.url());
    let relay = Running::start(&shell).await;
    enqueue(&database, &topic).await;

    let paused = wait::until(SOON, "the paused topic", || async {
        let status = shell.json(&["status"]).await;
        status["streams"][0]["paused"][0]["topic"]
            .as_str()
            .map(str::to_owned)
    })
    .await;
    let doctor = shell.run(&["doctor"]).await;
    let failed_fast = shell.run(&["relay", "--fail-fast"]).await;
    relay.signal(Signal::SIGTERM);

    assert_eq!(paused, topic);
    assert_eq!(doctor.code, 1, "{doctor:?}");
    assert!(
        doctor.out.contains(&topic) && doctor.out.contains("create it"),
        "{doctor:?}"
    );
    failed_fast.assert_refused(1, &[&topic]);
    assert_eq!(relay.ended().await.code, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let database = migrated().await;
    let nats = Nats::start(onceward_testkit::nats::Options::default()).await;
    let topic = unique("orders");
    let _tap = subscribe(&nats, &topic).await;
    let shell =
        shell(&database, &topic, nats.url()).variable("ONCEWARD__STREAMS__EVENTS__DRAIN", "10m");
    let mut relay = Running::start(&shell).await;
    // What is in flight to a broker that hangs is waited for.
    nats.freeze();
    enqueue(&database, &topic).await;
    relay.until_answer("/status", "\"in_flight\":1").await;

    // Signals that come while one is being looked at are one to the system.
    wait::until_true(SOON, "the relay to end", || {
        if relay.child.id().is_some() {
            relay.signal(Signal::SIGTERM);
        }
        let ended = relay.child.try_wait().unwrap().is_some();
        async move { ended }
    })
    .await;
    let ended = relay.ended().await;
    nats.cont();

    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.log.contains("ending at once"), "{ended:?}");
}

#[tokio::test]
async fn the_role_of_the_relay_is_enough_to_run_it_and_that_of_an_administrator_to_decide() {
    let database = migrated().await;
    let nats = Nats::shared().await;
    let topic = unique("orders");
    let mut tap = subscribe(nats, &topic).await;
    let (relay_user, admin_user) = (unique("relay"), unique("admin"));
    let roles = format!(
        "create role {relay_user} login in role onceward_relay; create role {admin_user} login in role onceward_admin"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(roles))
        .execute(database.pool())
        .await
        .unwrap();
    let shell = |user: &str| {
        shell(&database, &topic, nats.url())
            .variable("ONCEWARD__DATABASE__URL", &database.url_as(user))
    };

    let relay = Running::start(&shell(&relay_user)).await;
    enqueue(&database, &topic).await;
    timeout(SOON, tap.next()).await.unwrap().unwrap();
    let status = shell(&relay_user).json(&["status"]).await;
    shell(&relay_user).ok(&["doctor"]).await;
    shell(&admin_user)
        .ok(&["doctor", "--duty", "administer"])
        .await;
    shell(&admin_user).ok(&["parked", "list"]).await;
    shell(&admin_user).ok(&["dead-letters", "list"]).await;
    let lacking = shell(&admin_user).run(&["relay"]).await;
    relay.signal(Signal::SIGTERM);
    assert_eq!(relay.ended().await.code, Some(0));
    shell(&admin_user)
        .ok(&["stream", "drop", "events", "--yes"])
        .await;

    assert_eq!(status["dead_letters"], serde_json::Value::Null, "{status}");
    lacking.assert_refused(1, &[&admin_user, "lacks", "onceward_relay"]);
    let drop =
        format!("drop owned by {relay_user}, {admin_user}; drop role {relay_user}, {admin_user}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop))
        .execute(database.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn doctor_asks_kafka_about_topics_that_are_there_and_that_are_not() {
    let database = migrated().await;
    let kafka = Kafka::shared().await;
    let (there, missing) = (unique("there"), unique("missing"));
    kafka.create_topic(&there, 1, &[]).await;
    let text = format!(
        "source = \"/shop\"\n[streams.events]\ntopics = [\"{there}\", \"{missing}\"]\n[streams.events.kafka]\nbrokers = \"{}\"",
        kafka.brokers()
    );
    let shell = Shell::with_config(&text).variable("DATABASE_URL", database.url());

    let answer = shell.run(&["doctor"]).await;

    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(
        answer
            .out
            .contains(&format!("stream events to kafka: {there}")),
        "{answer:?}"
    );
    assert!(
        answer.out.contains(&format!("events (kafka): {missing}")),
        "{answer:?}"
    );
}
