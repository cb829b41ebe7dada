use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use onceward_testkit::nats::Nats;
use onceward_testkit::{free_port, unique, wait};
use tokio::time::timeout;

use crate::common::Shell;
use crate::{Running, SOON, enqueue, migrated, shell, subscribe};

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
    let targets: Vec<String> = lines
        .filter_map(|line| Some(line.ok()?["target"].as_str()?.to_owned()))
        .collect();
    assert!(
        targets.iter().all(|target| target.starts_with("onceward")),
        "clients tell only what is wrong: {targets:?}"
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
async fn asked_to_fail_fast_it_ends_with_1_also_while_no_topic_is_known() {
    let database = migrated().await;
    let nowhere = free_port();
    let destinations = [
        (
            "sqs",
            format!(
                "endpoint_url = \"http://127.0.0.1:{nowhere}\"\nregion = \"us-east-1\"\naccess_key_id = \"x\"\nsecret_access_key = \"x\""
            ),
        ),
        ("kafka", format!("brokers = \"127.0.0.1:{nowhere}\"")),
    ];

    for (broker, settings) in destinations {
        let shell = Shell::with_config(&format!(
            "source = \"/shop\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[streams.events]\ntopics = [\"*\"]\nroute = \"{{topic}}.fifo\"\n[streams.events.{broker}]\n{settings}"
        ))
        .variable("DATABASE_URL", database.url());
        let answer = shell.run(&["relay", "--fail-fast"]).await;

        let stream = format!("stream events ({broker})");
        answer.assert_refused(1, &["--fail-fast", &stream, "does not answer"]);
    }
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
