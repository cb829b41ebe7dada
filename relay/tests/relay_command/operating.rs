use std::process::Stdio;

use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use onceward_testkit::kafka::Kafka;
use onceward_testkit::nats::Nats;
use onceward_testkit::{unique, wait};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::common::Shell;
use crate::{Running, SOON, enqueue, migrated, shell, subscribe, subscribe_up_to};

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

#[tokio::test]
async fn a_stream_of_the_broker_that_lies_in_memory_is_warned_of_before_anything_is_published() {
    let database = migrated().await;
    let nats = Nats::shared().await;
    let topic = unique("orders");
    let stream = async_nats::jetstream::stream::Config {
        name: topic.clone(),
        subjects: vec![topic.clone()],
        storage: async_nats::jetstream::stream::StorageType::Memory,
        ..Default::default()
    };
    let jetstream = async_nats::jetstream::new(nats.client().await);
    jetstream.create_stream(stream).await.unwrap();
    let shell = shell(&database, &topic, nats.url());

    let mut command = shell.command(&["relay"]);
    let mut relay = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(relay.stderr.take().unwrap()).lines();

    let warned = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("lies in memory") {
                return serde_json::from_str::<serde_json::Value>(&line).unwrap();
            }
        }
        panic!("the relay ended and warned of nothing")
    };
    let line = timeout(SOON, warned).await.unwrap();
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(line["routes"], topic.as_str(), "{line}");
}
