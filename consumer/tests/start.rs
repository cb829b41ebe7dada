//! A start with the rights that a consumer needs, and the refusals of all others.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::time::Duration;

use common::{Order, SOON, Stage, TOPIC, effect, write_effect};
use onceward_consumer::{
    BuildError, Consumer, ConsumerBuilder, ConsumerError, HandlerSettings, Schema, Settled, Tx,
    dead_letter,
};
use onceward_migrations::Migrations;
use onceward_testkit::postgres::{Options, Postgres};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// A user of the database, made for one test.
struct User<'s> {
    name: String,
    stage: &'s Stage,
}

impl<'s> User<'s> {
    /// `clauses` are those of `create role`.
    async fn with(stage: &'s Stage, clauses: &str) -> Self {
        let name = onceward_testkit::unique("role");
        let user = Self { name, stage };
        user.run(&format!("create role {} login {clauses}", user.name))
            .await;
        user
    }

    async fn run(&self, sql: &str) {
        let run = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(self.stage.pool());
        run.await.unwrap();
    }

    async fn pool(&self, options: PgPoolOptions) -> PgPool {
        let url = self.stage.database.url_as(&self.name);
        options.connect(&url).await.unwrap()
    }

    /// How a consumer ends that starts as this user.
    async fn refusal(&self) -> ConsumerError {
        let pool = self.pool(PgPoolOptions::new()).await;
        let consumer = self.stage.builder().pool(pool).on("*", write_effect);
        let running = self.stage.run(consumer);
        running.task.await.unwrap().unwrap_err()
    }

    async fn drop(self) {
        let name = &self.name;
        self.run(&format!("drop owned by {name}; drop role {name}"))
            .await;
    }
}

#[tokio::test]
async fn a_role_that_lacks_a_right_is_told_which_grant_is_missing() {
    let stage = Stage::new().await;
    let user = User::with(&stage, "in role onceward_consumer").await;
    user.run("revoke insert on onceward.dead_letters from onceward_consumer")
        .await;

    let error = user.refusal().await;

    let ConsumerError::Rights {
        role,
        roles,
        missing,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((role, roles.len(), missing.len()), (&user.name, 0, 1));
    let statement = format!("grant insert on table onceward.dead_letters to \"{role}\";");
    assert!(error.to_string().ends_with(&statement), "{error}");
    user.drop().await;
}

#[tokio::test]
async fn a_user_without_the_role_of_consumers_is_told_to_get_it() {
    let stage = Stage::new().await;
    let user = User::with(&stage, "").await;

    let error = user.refusal().await;

    let statement = format!("grant onceward_consumer to \"{}\";", user.name);
    assert!(error.to_string().ends_with(&statement), "{error}");
    user.drop().await;
}

#[tokio::test]
async fn the_role_of_consumers_has_all_rights_that_a_consumer_needs() {
    let stage = Stage::new().await;
    let user = User::with(&stage, "in role onceward_consumer").await;
    let pool = user.pool(PgPoolOptions::new()).await;
    stage.publish(1, None);
    stage.put(&[], b"no json");

    let running = stage.run(stage.builder().pool(pool.clone()).on("*", write_effect));
    stage.settled(2).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    assert_eq!(stage.letters().await.len(), 1);
    pool.close().await;
    user.drop().await;
}

#[tokio::test]
async fn a_role_that_only_the_pool_takes_on_is_taken_on_beside_it_too() {
    let stage = Stage::new().await;
    let user = User::with(&stage, "noinherit in role onceward_consumer").await;
    let options = PgPoolOptions::new().after_connect(|connection, _| {
        Box::pin(async {
            let set = sqlx::query("set role onceward_consumer").execute(connection);
            set.await.map(drop)
        })
    });
    let pool = user.pool(options).await;
    // The first one of a partition is a suspect.
    stage.publish(1, None);

    let running = stage.run(stage.builder().pool(pool.clone()).on("*", write_effect));
    stage.settled(1).await;
    running.stop().await;

    assert_eq!(stage.effects().await, [1]);
    pool.close().await;
    user.drop().await;
}

/// What is done to a table, what a consumer says of it, and what undoes it.
const ALTERATIONS: [(&str, &str, &str); 5] = [
    (
        "alter table onceward.held_keys enable row level security",
        "onceward.held_keys has row security",
        "alter table onceward.held_keys disable row level security",
    ),
    (
        "alter table onceward.retries set unlogged",
        "onceward.retries has no write-ahead log",
        "alter table onceward.retries set logged",
    ),
    (
        "create rule copy as on insert to onceward.starts do also nothing",
        "onceward.starts has the rule copy",
        "drop rule copy on onceward.starts",
    ),
    (
        "create function lose() returns trigger language plpgsql as $$ begin return null; end $$;
         create trigger lose before insert on onceward.processed_messages_3 for each row execute function lose()",
        "onceward.processed_messages_3 has the trigger lose",
        "drop trigger lose on onceward.processed_messages_3",
    ),
    // Disabled for the table, and not for its partitions.
    (
        "create trigger lose before insert on onceward.processed_messages for each row execute function lose();
         alter table only onceward.processed_messages disable trigger lose",
        "onceward.processed_messages has the trigger lose",
        "drop trigger lose on onceward.processed_messages",
    ),
];

#[tokio::test]
async fn a_table_that_may_hide_change_or_lose_rows_is_refused() {
    let stage = Stage::new().await;
    let run = async |sql| {
        let run = sqlx::raw_sql(sql).execute(stage.pool()).await;
        run.unwrap();
    };

    for (alter, told, undo) in ALTERATIONS {
        run(alter).await;
        let error = start(stage.pool().clone()).await;
        assert!(matches!(error, ConsumerError::Altered { .. }), "{error}");
        assert!(error.to_string().contains(told), "{error}");
        run(undo).await;
    }

    run("create trigger tell after insert on onceward.dead_letters execute function lose()").await;
    run(
        "create trigger off before insert on onceward.retries execute function lose();
         alter table onceward.retries disable trigger off;
         create trigger everywhere before insert on onceward.processed_messages for each row execute function lose();
         alter table onceward.processed_messages disable trigger everywhere",
    )
    .await;
    let settled = until_idle(&stage, stage.builder().on("*", write_effect)).await;
    assert_eq!(settled, Settled::default());
}

#[tokio::test]
async fn who_sends_dead_letters_on_is_refused_a_log_that_may_lose_them() {
    let stage = Stage::new().await;
    sqlx::raw_sql("create rule copy as on insert to onceward.messages do instead nothing")
        .execute(stage.pool())
        .await
        .unwrap();
    let builder = || stage.builder().on("*", write_effect);

    until_idle(&stage, builder()).await;
    let sends = builder().dead_letters_to("billing.dead").build().unwrap();
    let subscriber = stage.broker.subscriber("billing", &[TOPIC]);
    let refused = sends.run_until_idle(subscriber).await.unwrap_err();

    let told = "onceward.messages has the rule copy";
    assert!(refused.to_string().contains(told), "{refused}");
}

async fn until_idle(stage: &Stage, consumer: ConsumerBuilder) -> Settled {
    let subscriber = stage.broker.subscriber("billing", &[TOPIC]);
    let consumer = consumer.build().unwrap();
    consumer.run_until_idle(subscriber).await.unwrap()
}

async fn start(pool: PgPool) -> ConsumerError {
    let consumer = Consumer::builder("billing")
        .pool(pool)
        .on("*", write_effect)
        .build()
        .unwrap();
    let broker = onceward_memory::MemoryBroker::new();
    let subscriber = broker.subscriber("billing", &[common::TOPIC]);
    let ended = consumer.run(subscriber, CancellationToken::new());
    tokio::time::timeout(SOON, ended)
        .await
        .unwrap()
        .unwrap_err()
}

#[tokio::test]
async fn a_database_without_the_schema_or_none_at_all_is_refused_at_the_start() {
    let postgres = Postgres::shared().await;
    let empty = postgres.database().await;
    let port = onceward_testkit::free_port();
    let nowhere = PgPoolOptions::new()
        .acquire_timeout(Duration::from_millis(500))
        .connect_lazy(&format!("postgres://postgres@127.0.0.1:{port}/x"))
        .unwrap();

    let without_schema = start(empty.pool().clone()).await;
    let without_database = start(nowhere).await;

    assert!(
        matches!(without_schema, ConsumerError::NoSchema(_)),
        "{without_schema}"
    );
    assert!(without_schema.to_string().contains("onceward migrate"));
    assert!(
        matches!(without_database, ConsumerError::Database(_)),
        "{without_database}"
    );
}

#[tokio::test]
async fn a_consumer_that_makes_no_sense_is_not_built() {
    let pool = PgPool::connect_lazy("postgres://127.0.0.1/x").unwrap();
    let builder = || Consumer::builder("billing").pool(pool.clone());
    let settings = |settings| builder().on("x", write_effect).with(settings).build();
    let zero = HandlerSettings {
        attempts: 0,
        ..HandlerSettings::default()
    };
    let endless = HandlerSettings {
        deadline: Duration::from_secs(36_000),
        ..HandlerSettings::default()
    };

    let mistakes = [
        Consumer::builder("a-b")
            .pool(pool.clone())
            .on("x", write_effect)
            .build(),
        Consumer::builder("a").on("x", write_effect).build(),
        builder().build(),
        builder().on("a b", write_effect).build(),
        builder().on("x", write_effect).ignore("x").build(),
        builder().with(HandlerSettings::default()).build(),
        settings(zero),
        settings(endless),
    ];

    let mistakes = mistakes.map(Result::unwrap_err);
    assert!(matches!(mistakes[0], BuildError::Name(_)));
    assert!(matches!(mistakes[1], BuildError::NoPool));
    assert!(matches!(mistakes[2], BuildError::NoHandler));
    assert!(matches!(mistakes[3], BuildError::Pattern(_)));
    assert!(matches!(mistakes[4], BuildError::PatternTwice(_)));
    assert!(matches!(mistakes[5], BuildError::SettingsWithoutHandler));
    assert!(matches!(mistakes[6], BuildError::Settings { .. }));
    assert!(matches!(mistakes[7], BuildError::Settings { .. }));
}

#[tokio::test]
async fn a_schema_may_be_named_by_a_word_of_sql() {
    let stage = Stage::new().await;
    let schema = Schema::try_from("order").unwrap();
    let migrations = Migrations::new(schema.clone());
    migrations.run(stage.pool()).await.unwrap();
    stage.publish(1, Some(1));
    stage.publish(-1, Some(2));
    let positive = async |event: Order, tx: &mut Tx| match event.order {
        ..0 => Err("below zero".into()),
        order => effect(order, tx).await,
    };

    let consumer = stage.builder().schema(schema.clone()).on("*", positive);
    until_idle(&stage, consumer).await;

    assert_eq!(stage.effects().await, [1]);
    let consumers = dead_letter::consumers(stage.pool(), &schema).await.unwrap();
    assert_eq!(consumers, ["billing"]);
    let letters = dead_letter::counts(stage.pool(), &schema).await.unwrap();
    assert_eq!(letters.len(), 1);
}

#[tokio::test]
async fn a_consumer_is_known_once_it_has_started() {
    let stage = Stage::new().await;
    let none = dead_letter::consumers(stage.pool(), &Schema::default()).await;
    let started = "select started_at from onceward.consumers";
    let mut times: Vec<OffsetDateTime> = Vec::new();

    for _ in 0..2 {
        until_idle(&stage, stage.builder().on("*", write_effect)).await;
        times.push(
            sqlx::query_scalar(started)
                .fetch_one(stage.pool())
                .await
                .unwrap(),
        );
    }

    assert_eq!(none.unwrap(), Vec::<String>::new());
    assert!(times[0] < times[1], "{times:?}");
}

#[tokio::test]
async fn a_consumer_is_noted_whatever_its_sessions_begin_with() {
    let stage = Stage::new().await;
    let options = PgPoolOptions::new().after_connect(|connection, _| {
        Box::pin(async {
            let defaults = "set default_transaction_isolation = 'serializable'; set default_transaction_read_only = on";
            sqlx::raw_sql(defaults).execute(connection).await.map(drop)
        })
    });
    let pool = options.connect(stage.database.url()).await.unwrap();
    stage.publish(1, None);

    let settled = until_idle(&stage, stage.builder().pool(pool).on("*", write_effect)).await;

    assert_eq!(settled.handled, 1);
    let consumers = dead_letter::consumers(stage.pool(), &Schema::default()).await;
    assert_eq!(consumers.unwrap(), ["billing"]);
}

#[tokio::test]
async fn a_consumer_starts_although_somebody_has_locked_its_note() {
    let stage = Stage::new().await;
    sqlx::query("insert into onceward.consumers (consumer) values ('billing')")
        .execute(stage.pool())
        .await
        .unwrap();
    let mut other = stage.pool().begin().await.unwrap();
    sqlx::query("delete from onceward.consumers")
        .execute(&mut *other)
        .await
        .unwrap();
    stage.publish(1, None);

    let settled = until_idle(&stage, stage.builder().on("*", write_effect)).await;

    assert_eq!(settled.handled, 1);
    other.rollback().await.unwrap();
}

#[tokio::test]
async fn a_standby_is_refused_with_what_to_give_instead() {
    let primary = Postgres::start(Options::default()).await;
    let stage = Stage::on(&primary).await;
    let standby = primary.standby("second").await;
    let url = standby.url(stage.database.name());
    let pool = PgPool::connect(&url).await.unwrap();

    let running = stage.run(stage.builder().pool(pool).on("*", write_effect));
    let error = running.task.await.unwrap().unwrap_err();

    assert!(matches!(error, ConsumerError::Standby), "{error}");
    assert_eq!(
        error.to_string(),
        "the database is a standby and takes no writes; give the primary's address"
    );
}
