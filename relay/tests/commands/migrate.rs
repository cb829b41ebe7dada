use onceward_testkit::postgres::Postgres;
use serde_json::json;

use crate::common::Shell;
use crate::{execute, migrated};

#[tokio::test]
async fn migrate_makes_the_schema_once_and_then_changes_nothing() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());

    let before = shell.run(&["migrate", "--check"]).await;
    let first = shell.json(&["migrate"]).await;
    let second = shell.json(&["migrate"]).await;
    let after = shell.run(&["migrate", "--check"]).await;

    before.assert_refused(1, &["not up to date", "onceward migrate"]);
    let all: Vec<i32> = (1..=onceward_migrations::LATEST).collect();
    assert_eq!(first["applied"], json!(all));
    assert_eq!(second["applied"], json!([]));
    assert_eq!(second["state"], "current");
    assert_eq!(after.code, 0, "{after:?}");
}

#[tokio::test]
async fn what_migrate_prints_can_be_pasted_elsewhere() {
    let database = Postgres::shared().await.database().await;
    let shell = Shell::with_database(database.url());

    let sql = Shell::with_config("").ok(&["migrate", "--print"]).await;
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(database.pool())
        .await
        .unwrap();

    assert_eq!(shell.json(&["migrate"]).await["applied"], json!([]));
}

#[tokio::test]
async fn a_schema_of_a_newer_release_is_refused() {
    let (database, shell) = migrated().await;
    execute(
        database.pool(),
        "insert into onceward.migrations (version, name, checksum) values (99, 'later', 'x')",
    )
    .await;

    shell
        .run(&["migrate"])
        .await
        .assert_refused(1, &["version 99", "newer"]);
    shell
        .run(&["status"])
        .await
        .assert_refused(1, &["version 99", "newer release"]);
}

#[tokio::test]
async fn logs_are_text_on_a_terminal_and_json_elsewhere_unless_the_configuration_says() {
    const TERMINAL: bool = true;
    for (format, terminal, json) in [
        ("auto", TERMINAL, false),
        ("auto", !TERMINAL, true),
        ("json", TERMINAL, true),
        ("text", !TERMINAL, false),
    ] {
        let database = Postgres::shared().await.database().await;
        let shell = Shell::with_database(database.url()).variable("ONCEWARD__LOG__FORMAT", format);

        let shown = if terminal {
            shell.on_a_terminal("migrate").await
        } else {
            shell.run(&["migrate"]).await.err
        };

        let mut lines = shown.lines();
        let step = lines.find(|line| line.contains("schema step applied"));
        let step = step.unwrap_or_else(|| panic!("no log: {shown}"));
        let event = serde_json::from_str::<serde_json::Value>(step);
        assert_eq!(event.is_ok(), json, "{format}, {terminal}: {step}");
        assert!(json || step.contains("INFO"), "{step}");
        // Colours are for terminals alone.
        let coloured = step.contains('\u{1b}');
        assert_eq!(coloured, terminal && !json, "{format}: {step:?}");
    }
}
