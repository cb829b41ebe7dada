use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use onceward_migrations::{LATEST, MigrateError, Migrations, Schema, State};
use onceward_testkit::postgres::{Database, Options, Postgres};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool, Row};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

async fn empty() -> Database {
    Postgres::shared().await.database().await
}

/// Everything in the schema, as text: objects, columns, rights and rows of the history.
async fn picture(pool: &PgPool, schema: &str) -> Vec<String> {
    let sql = "
        select format('%s %s %s %s', c.oid, c.relname, c.relkind, c.relacl) as line
        from pg_class c
        where c.relnamespace = to_regnamespace($1)
        union all
        select format('%s %s %s', p.oid, p.proname, p.proacl)
        from pg_proc p
        where p.pronamespace = to_regnamespace($1)
        order by line";
    let mut lines: Vec<String> = sqlx::query_scalar(sql)
        .bind(schema)
        .fetch_all(pool)
        .await
        .unwrap();
    let history = format!(
        "select format('%s %s %s %s', version, name, checksum, applied_at)
         from {schema}.migrations order by version"
    );
    let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(history))
        .fetch_all(pool)
        .await
        .unwrap();
    lines.extend(rows);
    lines
}

#[tokio::test]
async fn running_again_changes_nothing() {
    let database = super::migrated().await;
    let before = picture(database.pool(), "onceward").await;

    let report = onceward_migrations::run(database.pool()).await.unwrap();

    assert_eq!(report.applied, [0; 0]);
    assert_eq!(report.missing_roles, [""; 0]);
    assert_eq!(picture(database.pool(), "onceward").await, before);
}

#[tokio::test]
async fn many_programs_migrate_at_once_and_all_succeed() {
    let database = empty().await;
    let mut tasks = tokio::task::JoinSet::new();

    for _ in 0..8 {
        let pool = database.pool().clone();
        tasks.spawn(async move { onceward_migrations::run(&pool).await });
    }

    for result in tasks.join_all().await {
        assert!(result.is_ok(), "{result:?}");
    }
    let check = Migrations::new(Schema::default())
        .check(database.pool())
        .await
        .unwrap();
    assert_eq!(check.state, State::Current);
}

#[tokio::test]
async fn databases_of_one_cluster_create_the_roles_at_the_same_moment() {
    let server = Postgres::start(Options::default()).await;
    let databases = [
        server.database().await,
        server.database().await,
        server.database().await,
    ];
    let mut tasks = tokio::task::JoinSet::new();

    for database in &databases {
        let pool = database.pool().clone();
        tasks.spawn(async move { onceward_migrations::run(&pool).await });
    }

    for result in tasks.join_all().await {
        assert_eq!(result.unwrap().missing_roles, [""; 0]);
    }
}

#[tokio::test]
async fn what_was_printed_and_run_elsewhere_is_known() {
    let database = empty().await;
    let migrations = Migrations::new(Schema::try_from("shop_outbox").unwrap());
    let sql = migrations.print();

    for statement in [sql.clone(), format!("begin;\n{sql}\ncommit;"), sql] {
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(database.pool())
            .await
            .unwrap();
    }

    let check = migrations.check(database.pool()).await.unwrap();
    assert_eq!(check.state, State::Current);
    let report = migrations.run(database.pool()).await.unwrap();
    assert_eq!(report.applied, [0; 0]);
}

#[tokio::test]
async fn each_schema_of_a_database_has_its_own_history() {
    let database = super::migrated().await;
    // A word of SQL, which only works quoted.
    let other = Migrations::new(Schema::try_from("order").unwrap());

    let check = other.check(database.pool()).await.unwrap();
    let report = other.run(database.pool()).await.unwrap();

    assert_eq!(check.version, None);
    assert_eq!(report.applied, (1..=LATEST).collect::<Vec<_>>());
    let id: String = sqlx::query_scalar("select \"order\".enqueue('orders.created', 'x')::text")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(id.len(), 36);
}

#[tokio::test]
async fn a_check_names_what_is_pending_and_changes_nothing() {
    let database = empty().await;
    let migrations = Migrations::new(Schema::default());

    let check = migrations.check(database.pool()).await.unwrap();

    assert_eq!(check.state, State::Pending((1..=LATEST).collect()));
    let schemas: i64 =
        sqlx::query_scalar("select count(*) from pg_namespace where nspname = 'onceward'")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!(schemas, 0);
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_a_clear_sentence() {
    let database = super::migrated().await;
    sqlx::query("insert into onceward.migrations (version, name, checksum) values (99, 'x', 'x')")
        .execute(database.pool())
        .await
        .unwrap();

    let error = onceward_migrations::run(database.pool()).await.unwrap_err();

    assert!(matches!(error, MigrateError::Newer { found: 99, .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "the schema onceward is at version 99, and this program knows versions up to {LATEST}: \
             use a newer release of it"
        )
    );
}

#[tokio::test]
async fn a_step_applied_with_another_text_is_refused() {
    let database = super::migrated().await;
    sqlx::query("update onceward.migrations set checksum = 'x' where version = 2")
        .execute(database.pool())
        .await
        .unwrap();

    let error = onceward_migrations::run(database.pool()).await.unwrap_err();

    assert!(matches!(error, MigrateError::Changed { version: 2, .. }));
}

/// The notices of PostgreSQL, as sqlx passes them on.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<String>>>);

impl Notices {
    /// The only one that begins so.
    fn the_one_of(&self, beginning: &str) -> String {
        let mut notices = self.0.lock().unwrap().clone();
        notices.retain(|notice| notice.starts_with(beginning));
        assert_eq!(notices.len(), 1, "{notices:?}");
        notices.remove(0)
    }
}

impl<S: tracing::Subscriber> Layer<S> for Notices {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::postgres::notice" {
            event.record(&mut self.clone());
        }
    }
}

impl Visit for Notices {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(value.to_owned());
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

async fn run(pool: &PgPool, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

#[tokio::test]
async fn without_the_right_to_create_roles_the_tables_come_and_a_notice_says_what_to_run() {
    let server = Postgres::start(Options::default()).await;
    let database = server.database().await;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "create role deployer login; grant create on database {} to deployer",
        database.name()
    )))
    .execute(database.pool())
    .await
    .unwrap();
    let deployer = PgPoolOptions::new()
        .connect(&database.url_as("deployer"))
        .await
        .unwrap();

    let notices = Notices::default();
    let subscriber = tracing_subscriber::registry().with(notices.clone());
    let listening = tracing::subscriber::set_default(subscriber);

    let report = onceward_migrations::run(&deployer).await.unwrap();

    drop(listening);
    assert_eq!(report.applied, (1..=LATEST).collect::<Vec<_>>());
    assert_eq!(report.missing_roles.len(), 4);
    let notice = notices.the_one_of("onceward: ");
    let (_, said) = notice
        .split_once("this user may not create roles. Have an administrator run: ")
        .expect("the notice says what an administrator runs");
    let (administrator, owner) = said
        .split_once(" Then, as the owner of the tables: ")
        .expect("the notice says what the owner runs");

    // Later both do what it said.
    run(database.pool(), administrator).await;
    run(&deployer, owner).await;
    let row = sqlx::query(
        "select has_column_privilege('onceward_writer', 'onceward.messages', 'payload', 'insert') as writer,
                has_table_privilege('onceward_relay', 'onceward.messages_3', 'truncate') as relay",
    )
    .fetch_one(&deployer)
    .await
    .unwrap();
    assert!(row.get::<bool, _>("writer") && row.get::<bool, _>("relay"));
    let report = onceward_migrations::run(&deployer).await.unwrap();
    assert_eq!(report.missing_roles, [""; 0]);
}

#[tokio::test]
async fn a_user_who_owns_the_schema_needs_no_right_on_the_database() {
    let database = empty().await;
    let role = onceward_testkit::unique("owner");
    sqlx::raw_sql(AssertSqlSafe(format!(
        "create role {role} login; create schema onceward authorization {role}"
    )))
    .execute(database.pool())
    .await
    .unwrap();
    let owner = PgPoolOptions::new()
        .connect(&database.url_as(&role))
        .await
        .unwrap();

    let report = onceward_migrations::run(&owner).await.unwrap();

    assert_eq!(report.applied, (1..=LATEST).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_read_only_database_is_named_as_such() {
    let database = empty().await;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "alter database {} set default_transaction_read_only = on",
        database.name()
    )))
    .execute(database.pool())
    .await
    .unwrap();
    let pool = PgPoolOptions::new().connect(database.url()).await.unwrap();

    let error = onceward_migrations::run(&pool).await.unwrap_err();

    assert!(matches!(error, MigrateError::ReadOnly(_)), "{error:?}");
}

#[tokio::test]
async fn repeatable_read_as_the_default_does_not_break_concurrent_runs() {
    let database = empty().await;
    sqlx::raw_sql(AssertSqlSafe(format!(
        "alter database {} set default_transaction_isolation = 'repeatable read'",
        database.name()
    )))
    .execute(database.pool())
    .await
    .unwrap();
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .connect(database.url())
        .await
        .unwrap();

    let (a, b, c) = tokio::join!(
        onceward_migrations::run(&pool),
        onceward_migrations::run(&pool),
        onceward_migrations::run(&pool)
    );

    for result in [a, b, c] {
        assert!(result.is_ok(), "{result:?}");
    }
}

#[test]
fn a_schema_name_with_quotes_is_refused() {
    for name in ["a\"b", "a'b", "a;drop schema public", "Shop", "pg_x", ""] {
        assert!(Schema::try_from(name).is_err(), "{name:?}");
    }
}
