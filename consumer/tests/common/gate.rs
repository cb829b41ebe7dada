//! A gate in the middle of handlers, at which a test lets them wait.

use onceward_consumer::HandlerError;
use sqlx::PgConnection;
use tokio::sync::Semaphore;

use super::SOON;

/// Handlers wait here for permits, and the test for handlers.
#[derive(Debug)]
pub(crate) struct Gate {
    permits: Semaphore,
    /// One for each handler that has come and that the test has not waited for yet.
    arrivals: Semaphore,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            permits: Semaphore::new(0),
            arrivals: Semaphore::new(0),
        }
    }

    pub(crate) fn add_permits(&self, count: usize) {
        self.permits.add_permits(count);
    }

    pub(crate) fn available_permits(&self) -> usize {
        self.permits.available_permits()
    }

    /// Waits until one more handler has come to the gate. It has the answer to its last statement then: what is done to its connection
    /// from now on it finds out only once it is let on.
    pub(crate) async fn has_a_handler(&self) {
        tokio::time::timeout(SOON, self.arrivals.acquire())
            .await
            .expect("a handler comes to the gate")
            .unwrap()
            .forget();
    }
}

/// Waits for a permit in the middle of a handler, which the test sees by [`Gate::has_a_handler`].
pub(crate) async fn pass_the_gate(
    gate: &Gate,
    connection: &mut PgConnection,
) -> Result<(), HandlerError> {
    sqlx::query("select 'in the handler'")
        .execute(connection)
        .await?;
    gate.arrivals.add_permits(1);
    gate.permits.acquire().await?.forget();
    Ok(())
}
