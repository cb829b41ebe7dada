use onceward_testkit::postgres::Database;
use onceward_testkit::unique;

use crate::common::Shell;
use crate::with_parked;

/// A user who may do nothing but connect.
async fn stranger(database: &Database) -> (String, Shell) {
    let user = unique("stranger");
    let create = format!("create role {user} login");
    sqlx::raw_sql(sqlx::AssertSqlSafe(create))
        .execute(database.pool())
        .await
        .unwrap();
    let config = "source = \"/s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[streams.events.nats]\nservers = \"nats://127.0.0.1:1\"";
    let shell = Shell::with_config(config).variable("DATABASE_URL", &database.url_as(&user));
    (user, shell)
}

async fn execute(database: &Database, statement: String) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(database.pool())
        .await
        .unwrap();
}

#[tokio::test]
async fn who_lacks_a_right_is_told_the_role_and_the_statement_that_grants_it() {
    let (database, _) = with_parked().await;
    let (user, shell) = stranger(&database).await;
    // It sees the schema and its version, as every role of ours does.
    execute(&database, format!("grant usage on schema onceward to {user}; grant select on onceward.migrations, onceward.settings to {user}")).await;

    for command in [
        &["status"][..],
        &["parked", "list"],
        &["parked", "show", "events", "7"],
        &["parked", "discard", "events", "7", "--yes"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--consumer", "billing"],
        &["dead-letters", "show", "1"],
        &["stream", "list"],
        &["stream", "drop", "events", "--yes"],
    ] {
        let grant = format!("grant onceward_admin to \"{user}\";");
        let answer = shell.run(command).await;
        answer.assert_refused(1, &["permission denied", "onceward_admin", &grant]);
    }
    let grant = format!("grant onceward_relay to \"{user}\";");
    shell.run(&["relay"]).await.assert_refused(1, &[&grant]);
    execute(&database, format!("drop owned by {user}; drop role {user}")).await;
}

#[tokio::test]
async fn who_runs_relays_and_consumers_may_look_and_not_decide() {
    let (database, owner) = with_parked().await;
    let (user, shell) = stranger(&database).await;
    execute(
        &database,
        format!("grant onceward_relay, onceward_consumer to {user}"),
    )
    .await;

    for command in [
        &["parked", "list"][..],
        &["stream", "list"],
        &["dead-letters", "list"],
    ] {
        shell.ok(command).await;
    }
    for command in [
        &["parked", "edit", "events", "7", "--key", "x"][..],
        &["parked", "replay", "events", "7"],
        &["parked", "discard", "events", "7", "--yes"],
        &["stream", "drop", "events", "--yes"],
        &["dead-letters", "edit", "1", "--key", "x"],
        &["dead-letters", "replay", "1"],
        &["dead-letters", "discard", "1", "--yes"],
    ] {
        let grant = format!("grant onceward_admin to \"{user}\";");
        shell
            .run(command)
            .await
            .assert_refused(1, &["lacks the role onceward_admin", &grant]);
    }
    execute(&database, format!("grant onceward_admin to {user}")).await;
    shell.ok(&["parked", "replay", "events", "7"]).await;
    owner
        .ok(&["parked", "discard", "events", "7", "--yes"])
        .await;
    execute(&database, format!("drop owned by {user}; drop role {user}")).await;
}

#[tokio::test]
async fn who_has_no_role_at_all_is_told_so_and_not_that_the_schema_is_missing() {
    let (database, _) = with_parked().await;
    let (user, shell) = stranger(&database).await;

    for (command, role) in [
        (&["status"][..], "onceward_admin"),
        (&["parked", "list"], "onceward_admin"),
        (&["relay"], "onceward_relay"),
    ] {
        let grant = format!("grant {role} to \"{user}\";");
        shell.run(command).await.assert_refused(1, &[&grant]);
    }
    let looked = shell.run(&["doctor", "--no-destinations"]).await;
    let grant = format!("grant onceward_relay to \"{user}\";");
    assert!(looked.out.contains(&grant), "{looked:?}");
    assert!(!looked.out.contains("TRUNCATE"), "{looked:?}");
    let asked = ["doctor", "--no-destinations", "--duty", "administer"];
    let looked = shell.run(&asked).await;
    let grant = format!("grant onceward_admin to \"{user}\";");
    assert!(looked.out.contains(&grant), "{looked:?}");
    execute(&database, format!("drop role {user}")).await;
}

#[tokio::test]
async fn doctor_tells_the_user_of_a_consumer_which_role_it_lacks() {
    let (database, _) = with_parked().await;
    let (user, shell) = stranger(&database).await;
    let looked = ["doctor", "--duty", "consume", "--no-destinations"];

    let without = shell.run(&looked).await;
    execute(&database, format!("grant onceward_consumer to {user}")).await;
    let with = shell.run(&looked).await;
    execute(&database, format!("drop owned by {user}; drop role {user}")).await;

    assert_eq!(without.code, 1, "{without:?}");
    let grant = format!("grant onceward_consumer to \"{user}\";");
    assert!(without.out.contains(&grant), "{without:?}");
    assert_eq!(with.code, 0, "{with:?}");
}
