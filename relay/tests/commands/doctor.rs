use onceward_testkit::postgres::Postgres;

use crate::common::Shell;
use crate::status::HOLD;
use crate::{execute, migrated, with_parked};

#[tokio::test]
async fn doctor_finds_nothing_wrong_with_a_fresh_schema() {
    let (_database, shell) = migrated().await;

    let answer = shell.json(&["doctor"]).await;

    assert_eq!(answer["healthy"], true, "{answer}");
    assert_eq!(
        answer["server"]["schema_version"],
        onceward_migrations::LATEST
    );
}

#[tokio::test]
async fn doctor_says_what_is_wrong_and_what_to_do() {
    let database = Postgres::shared().await.database().await;
    let port = onceward_testkit::free_port();
    let shell = Shell::with_config(&format!(
        "source = \"/shop\"\n[retention]\nmessages = \"10d\"\n[streams.events.nats]\nservers = \"nats://127.0.0.1:{port}\""
    ))
    .variable("DATABASE_URL", database.url());
    shell.ok(&["migrate"]).await;
    execute(
        database.pool(),
        "alter table onceward.messages enable row level security; alter sequence onceward.messages_seq_seq cache 10",
    )
    .await;

    let answer = shell.run(&["doctor", "--json"]).await;

    assert_eq!(answer.code, 1, "{answer:?}");
    let found: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    let codes: Vec<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["code"].as_str().unwrap())
        .collect();
    for code in ["row_security", "sequence", "retention", "destination"] {
        assert!(codes.contains(&code), "{code} is not in {codes:?}");
    }
    let remedies = found["findings"].as_array().unwrap().iter();
    assert!(
        remedies
            .clone()
            .all(|f| !f["remedy"].as_str().unwrap().is_empty())
    );
}

#[tokio::test]
async fn doctor_says_reached_of_no_broker_that_it_has_not_reached() {
    let database = Postgres::shared().await.database().await;
    let port = onceward_testkit::free_port();
    let shell = Shell::with_config(&format!(
        r#"
        source = "/shop"
        [streams.queues]
        topics = ["*"]
        route = "{{topic}}.fifo"
        [streams.queues.sqs]
        endpoint_url = "http://127.0.0.1:{port}"
        region = "us-east-1"
        access_key_id = "x"
        secret_access_key = "x"
        [streams.logs]
        topics = ["payments.*"]
        [streams.logs.kafka]
        brokers = "127.0.0.1:{port}"
        "#
    ))
    .variable("DATABASE_URL", database.url());
    shell.ok(&["migrate"]).await;

    let answer = shell.run(&["doctor"]).await;

    assert_eq!(answer.code, 1, "{answer:?}");
    for part in [
        "stream queues to sqs: cannot be used",
        "stream queues (sqs): SQS does not answer",
        "streams.queues.sqs.endpoint_url",
        "stream logs to kafka: cannot be used",
        "stream logs (kafka): Kafka does not answer",
    ] {
        assert!(answer.out.contains(part), "{part:?} is not in {answer:?}");
    }
    assert!(!answer.out.contains(": reached"), "{answer:?}");
}

#[tokio::test]
async fn doctor_names_what_keeps_old_slots() {
    let (database, shell) = with_parked().await;
    execute(
        database.pool(),
        r#"
        insert into onceward.messages (lane, id, topic, type, payload, created_at, slot)
        select 1, gen_random_uuid(), 'orders.created', 'orders.created', '', clock_timestamp() - interval '5 days',
          (floor(date_part('epoch', clock_timestamp()) / 86400)::bigint + 7) % 12;
        "#,
    )
    .await;

    let answer = shell.json(&["doctor"]).await;

    let findings = answer["findings"].as_array().unwrap();
    let kept = findings.iter().find(|f| f["code"] == "slot_kept").unwrap();
    assert!(
        kept["text"]
            .as_str()
            .unwrap()
            .contains("the stream events has not published all"),
        "{kept}"
    );
    assert!(
        kept["remedy"]
            .as_str()
            .unwrap()
            .contains("onceward stream drop events"),
        "{kept}"
    );
    execute(
        database.pool(),
        "update onceward.streams set owner = 'relay-7', lease_until = clock_timestamp() + interval '1 hour'",
    )
    .await;
    let held = shell.json(&["doctor"]).await.to_string();
    assert!(held.contains("relay-7 holds the stream"), "{held}");
    assert!(!held.contains("stream drop"), "{held}");
}

#[tokio::test]
async fn doctor_warns_of_what_lies_in_the_log_and_no_stream_reads() {
    let (database, shell) = migrated().await;
    execute(
        database.pool(),
        "select onceward.enqueue('orders.created', ''::bytea); select onceward.enqueue('payments.made', ''::bytea);",
    )
    .await;
    let looked = ["doctor", "--duty", "administer", "--no-destinations"];

    let without_stream = shell.ok(&looked).await;
    execute(
        database.pool(),
        "insert into onceward.streams (stream, topics) values ('events', '{orders.*}')",
    )
    .await;
    let without_topic = shell.ok(&looked).await;

    let warned = "warning: the log holds messages that no stream of this database reads, and so nobody publishes: of";
    for (answer, topics) in [
        (without_stream, "orders.created, payments.made"),
        (without_topic, "payments.made"),
    ] {
        let warning = format!("{warned} {topics}\n");
        assert!(answer.contains(&warning), "{warning:?} is not in {answer}");
    }
}

#[tokio::test]
async fn doctor_does_not_advise_to_drop_what_a_relay_of_another_configuration_holds() {
    let (database, _) = with_parked().await;
    execute(
        database.pool(),
        "update onceward.streams
         set owner = 'relay-7', lease_token = gen_random_uuid(), lease_until = clock_timestamp() + interval '1 hour'",
    )
    .await;
    let config = "source = \"/s\"\n[streams.other.nats]\nservers = \"nats://127.0.0.1:1\"";
    let shell = Shell::with_config(config).variable("DATABASE_URL", database.url());

    let answer = shell.json(&["doctor", "--no-destinations"]).await;

    let findings = answer["findings"].as_array().unwrap();
    let held = findings.iter().find(|f| f["code"] == "stream_elsewhere");
    let text = held.unwrap()["text"].as_str().unwrap();
    assert!(text.contains("relay-7 holds the stream events"), "{text}");
    assert!(!answer.to_string().contains("stream drop"), "{answer}");
}

#[tokio::test]
async fn doctor_names_what_waits_for_a_person_and_the_command_to_run() {
    let (database, shell) = with_parked().await;
    execute(database.pool(), HOLD).await;

    let answer = shell.ok(&["doctor"]).await;

    for part in [
        "2 parked messages of the stream events wait for a person, the oldest for 2 h",
        "1 key is held in the stream events, the first for 2 h",
        "`onceward parked list --stream events`",
    ] {
        assert!(answer.contains(part), "{part:?} is not in {answer}");
    }
}

#[tokio::test]
async fn doctor_finds_streams_of_the_file_that_overlap_before_a_relay_has_run() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_config(
        r#"
        source = "/shop"
        [streams.events]
        topics = ["orders.*"]
        nats.servers = "nats://127.0.0.1:1"
        [streams.paid]
        topics = ["*.paid"]
        nats.servers = "nats://127.0.0.1:1"
        "#,
    )
    .variable("DATABASE_URL", database.url());
    let told = "note: the streams events (orders.*) and paid (*.paid) may publish the same topics";

    let without_schema = shell.run(&["doctor", "--no-destinations"]).await;
    shell.ok(&["migrate"]).await;
    let without_streams = shell.ok(&["doctor", "--no-destinations"]).await;

    assert!(without_schema.out.contains(told), "{without_schema:?}");
    assert!(without_streams.contains(told), "{without_streams}");
}
