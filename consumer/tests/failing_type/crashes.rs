//! Members that die while a type is paused, and a database that does.

use onceward_testkit::postgres::{Options, Postgres};

use crate::common::Stage;
use crate::{
    Dependency, builder, publish_failing, wait_for_calls, wait_for_effects, wait_until_forgotten,
    wait_until_paused,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_die_at_any_time_leave_no_message_that_waits_for_ever() {
    let stage = Stage::new().await;
    for order in 0..300 {
        stage.publish(order, Some(order % 60));
    }
    let dependency = Dependency::default();
    let run = || stage.run(builder(&stage, &dependency));

    let mut members = vec![run(), run()];
    wait_until_paused(&stage).await;
    for round in 1..=6 {
        // Down and up again, so that the type is paused, probed and resumed while members die.
        dependency.up(round % 2 == 0);
        let before = dependency.calls();
        wait_for_calls(&dependency, before + 5).await;
        members.remove(0).kill().await;
        members.push(run());
        if stage.effects().await.len() >= 250 {
            break;
        }
    }
    dependency.up(true);
    wait_for_effects(&stage, 300).await;
    wait_until_forgotten(&stage).await;
    for member in members {
        member.stop().await;
    }

    stage.in_order(60).await;
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_while_a_type_is_paused_delays_it_only() {
    let postgres = Postgres::start(Options::default()).await;
    let stage = Stage::on(&postgres).await;
    publish_failing(&stage, 100);
    let dependency = Dependency::default();

    let members = [0, 1].map(|_| stage.run(builder(&stage, &dependency)));
    wait_until_paused(&stage).await;
    postgres.kill();
    postgres.start_again().await;
    let before = dependency.calls();
    wait_for_calls(&dependency, before + 3).await;
    dependency.up(true);
    postgres.kill();
    postgres.start_again().await;
    wait_for_effects(&stage, 100).await;
    for member in members {
        member.stop().await;
    }

    let mut effects = stage.effects().await;
    effects.sort_unstable();
    assert_eq!(effects, (0..100).collect::<Vec<i64>>());
    stage.nothing_waits().await;
    assert!(stage.letters().await.is_empty());
}
