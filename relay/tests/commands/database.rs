use onceward_testkit::postgres::{Options, Postgres};

use crate::common::Shell;
use crate::execute;

#[tokio::test]
async fn a_database_that_is_not_there_is_named_by_its_setting() {
    let port = onceward_testkit::free_port();
    let shell = Shell::with_database(&format!("postgres://shop:hunter2@127.0.0.1:{port}/shop"));

    for command in [&["migrate"][..], &["status"], &["parked", "list"]] {
        let parts = [
            "no database answers",
            &format!("127.0.0.1:{port}"),
            "database.url",
        ];
        shell.run(command).await.assert_refused(1, &parts);
    }
    Shell::with_config("")
        .run(&["status"])
        .await
        .assert_refused(2, &["database.url", "DATABASE_URL"]);
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_database_are_told_apart() {
    let rules = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        rules.path(),
        "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n",
    )
    .unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(rules.path(), readable).unwrap();
    let options = Options::default().config("hba_file", &rules.path().display().to_string());
    let server = Postgres::start(options).await;
    let database = server.database().await;
    execute(database.pool(), "create role shop login password 'right'").await;
    let url = |password: &str, name: &str| {
        let host = database
            .url()
            .rsplit_once('@')
            .unwrap()
            .1
            .split_once('/')
            .unwrap()
            .0;
        format!("postgres://shop:{password}@{host}/{name}")
    };

    let stream = "source = \"/shop\"\n[streams.events.nats]\nservers = \"nats://127.0.0.1:1\"\n";
    for command in ["status", "relay"] {
        let run = async |url: String| {
            let shell = Shell::with_config(stream).variable("DATABASE_URL", &url);
            shell.run(&[command]).await
        };

        let wrong = run(url("hunter2", database.name())).await;
        let missing = run(url("right", "nowhere")).await;

        wrong.assert_refused(1, &["\"shop\"", "database.url", "password"]);
        missing.assert_refused(1, &["\"nowhere\"", "database.url"]);
    }
}

#[tokio::test]
async fn a_database_without_the_schema_is_told_what_to_run() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());

    for command in [
        &["status"][..],
        &["dead-letters", "list"],
        &["parked", "list"],
        &["stream", "list"],
    ] {
        shell
            .run(command)
            .await
            .assert_refused(1, &["no schema onceward", "run `onceward migrate`"]);
    }
}

#[tokio::test]
async fn a_standby_is_not_migrated_and_found_by_doctor() {
    let primary = Postgres::start(Options::default()).await;
    let standby = primary.standby("copy").await;
    let shell = Shell::with_database(&standby.url("postgres"));

    let migrated = shell.run(&["migrate"]).await;
    let looked = shell.run(&["doctor"]).await;

    migrated.assert_refused(1, &["standby", "primary"]);
    assert_eq!(looked.code, 1, "{looked:?}");
    assert!(looked.out.contains("standby"), "{looked:?}");
}
