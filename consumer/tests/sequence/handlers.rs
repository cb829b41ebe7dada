//! Handlers that swallow errors or end the transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use onceward_consumer::{HandlerError, Tx};
use onceward_core::Message;
use sqlx::Connection as _;

use super::{message, row};
use crate::common::{Order, Stage, effect};

#[tokio::test]
async fn a_statement_that_failed_and_was_swallowed_is_a_failed_attempt() {
    async fn swallows(
        calls: Arc<AtomicU32>,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 2 && calls.fetch_add(1, Ordering::SeqCst) == 0 {
            drop(sqlx::query("select 1 / 0").execute(&mut **tx).await);
        }
        Ok(())
    }
    let stage = Stage::new().await;
    (1..=3).for_each(|number| stage.number(number));
    let calls = Arc::new(AtomicU32::new(0));
    let builder = stage.by_sequence().on_with("*", calls.clone(), swallows);

    let settled = stage.settle(builder).await;

    assert_eq!(settled.handled, 3);
    assert_eq!(stage.effects().await, [1, 2, 3]);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_handler_that_commits_by_itself_is_a_dead_letter_and_not_run_again() {
    async fn commits(
        statement: &'static str,
        event: Order,
        tx: &mut Tx,
    ) -> Result<(), HandlerError> {
        effect(event.order, tx).await?;
        if event.order == 2 {
            sqlx::raw_sql(statement).execute(&mut **tx).await?;
        }
        Ok(())
    }
    for statement in [
        "commit",
        "rollback",
        "commit; begin; insert into effects (order_id) values (9)",
        "rollback; begin; insert into effects (order_id) values (9)",
    ] {
        let stage = Stage::new().await;
        let sent: Vec<Message> = (1..=3).map(|n| message(n, n, n)).collect();
        sent.iter()
            .chain(&sent)
            .for_each(|one| stage.send(one.clone()));

        let builder = stage.by_sequence().on_with("*", statement, commits);
        let settled = stage.settle(builder).await;

        assert_eq!(
            (settled.dead, settled.handled, settled.duplicates),
            (1, 2, 3),
            "{statement}"
        );
        assert_eq!(stage.reasons().await, ["transaction_ended"], "{statement}");
        let (_, error, _) = stage.letters().await.swap_remove(0);
        assert!(
            error.contains("another member may have handled it"),
            "{error}"
        );
        assert_eq!(stage.row().await, row(3, "{}", 3), "{statement}");
        assert!(!stage.effects().await.contains(&9), "{statement}");
    }
}

#[tokio::test]
async fn a_nested_transaction_of_the_handler_does_not_hold_the_number() {
    async fn nested(event: Order, tx: &mut Tx) -> Result<(), HandlerError> {
        let mut inner = tx.begin().await?;
        sqlx::query("insert into effects (order_id) values (-1)")
            .execute(&mut *inner)
            .await?;
        inner.rollback().await?;
        effect(event.order, tx).await
    }
    let stage = Stage::new().await;
    (1..=3).for_each(|number| stage.number(number));

    stage.settle(stage.by_sequence().on("*", nested)).await;

    assert_eq!(stage.effects().await, [1, 2, 3]);
    assert_eq!(stage.row().await, row(3, "{}", 3));
}
