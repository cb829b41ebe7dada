use crate::common::Shell;

#[tokio::test]
async fn wrong_usage_and_wrong_configuration_end_with_2() {
    let wrong = Shell::with_config("[databse]\nurl = \"postgres://shop:hunter2@h/d\"\nchunk = 1");

    wrong
        .run(&["status"])
        .await
        .assert_refused(2, &["databse", "did you mean database?"]);
    let shell = Shell::with_config("");
    shell.run(&["stauts"]).await.assert_refused(2, &["status"]);
    shell
        .run(&["--config", "/nonexistent.toml", "status"])
        .await
        .assert_refused(2, &["/nonexistent.toml", "name a file that is there"]);
}

#[tokio::test]
async fn a_failure_has_a_json_form_too() {
    let answer = Shell::with_config("").run(&["status", "--json"]).await;

    let error: serde_json::Value = serde_json::from_str(&answer.err).unwrap();
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("database.url"),
        "{error}"
    );
    assert!(error["error"]["remedy"].is_string(), "{error}");
}

#[tokio::test]
async fn the_help_names_every_command() {
    let help = Shell::with_config("").ok(&["--help"]).await;

    for command in [
        "migrate",
        "relay",
        "status",
        "doctor",
        "parked",
        "dead-letters",
        "stream",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} is not in {help}"
        );
        let own = Shell::with_config("").ok(&[command, "--help"]).await;
        assert!(own.contains("--config") && own.contains("--json"), "{own}");
    }
}

#[tokio::test]
async fn addresses_of_another_kind_are_refused_as_configuration() {
    let stream = |broker: &str| {
        format!("source = \"/s\"\n[database]\nurl = \"postgres://h/d\"\n[streams.events.{broker}")
    };
    for (config, parts) in [
        (
            "[database]\nurl = \"mysql://shop:hunter2@h/d\"".to_owned(),
            ["database.url", "mysql://", "postgresql://"],
        ),
        (
            stream("nats]\nservers = \"http://h:4222\""),
            ["streams.events.nats.servers", "http://", "tls://"],
        ),
        (
            stream("kafka]\nbrokers = \"h:9092,http://h:9092\""),
            ["streams.events.kafka.brokers", "http://", "host:port"],
        ),
        (
            stream("sqs]\nendpoint_url = \"sqs://h\""),
            ["streams.events.sqs.endpoint_url", "http://", "https://"],
        ),
    ] {
        let shell = Shell::with_config(&config);
        shell.run(&["relay"]).await.assert_refused(2, &parts);
    }
}

#[tokio::test]
async fn a_relay_without_a_configuration_is_told_where_it_was_looked_for_and_what_is_enough() {
    let shell = Shell::without_config();

    let answer = shell.run(&["relay"]).await;

    answer.assert_refused(
        2,
        &[
            "--config",
            "there is no",
            "onceward.toml",
            "ONCEWARD__STREAMS__",
        ],
    );
    let (_, shown) = answer.err.split_once("\n\n").unwrap();
    let smallest = Shell::with_config(shown).run(&["relay"]).await;
    // It is a configuration that can be used; only there is no such database.
    smallest.assert_refused(1, &["database.url"]);
}

#[tokio::test]
async fn a_decision_about_nothing_is_told_what_may_be_named() {
    let shell = Shell::with_config("");

    for command in [
        &["parked", "replay", "events"][..],
        &["dead-letters", "discard"],
    ] {
        let parts = ["<NUMBER|--all>", "[OPTIONS]"];
        shell.run(command).await.assert_refused(2, &parts);
    }
    let both = ["dead-letters", "replay", "7", "--all"];
    shell.run(&both).await.assert_refused(2, &["--all"]);
    let idle = ["dead-letters", "replay", "7", "--consumer", "billing"];
    shell.run(&idle).await.assert_refused(2, &["--all"]);
}
