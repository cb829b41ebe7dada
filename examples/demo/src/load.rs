//! Customers who order: a steady rate of HTTP requests to the order service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::http::Connection;

/// Customers at the till at the same time.
const TILLS: u32 = 8;
/// Keys of the messages.
const CUSTOMERS: u32 = 200;
const REST_AFTER_ERROR: Duration = Duration::from_millis(100);

/// What the customers were told.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Orders that were taken.
    pub(crate) taken: AtomicU64,
    /// Requests that failed; whether their orders were taken is for the ledger to say.
    pub(crate) failed: AtomicU64,
}

/// Orders about `rate` times a second until told to stop.
pub(crate) async fn run(
    service: SocketAddr,
    rate: u32,
    answers: Arc<Answers>,
    stop: CancellationToken,
) {
    let mut tills = JoinSet::new();
    for _ in 0..TILLS {
        let pace = Duration::from_secs(1) * TILLS / rate.max(1);
        tills.spawn(till(service, pace, Arc::clone(&answers), stop.clone()));
    }
    tills.join_all().await;
}

async fn till(service: SocketAddr, pace: Duration, answers: Arc<Answers>, stop: CancellationToken) {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if order(&mut connection, service).await {
            answers.taken.fetch_add(1, Ordering::Relaxed);
        } else {
            answers.failed.fetch_add(1, Ordering::Relaxed);
            connection = None;
            tokio::time::sleep(REST_AFTER_ERROR).await;
        }
    }
}

async fn order(connection: &mut Option<Connection>, service: SocketAddr) -> bool {
    let open = match connection {
        Some(open) => open,
        None => match Connection::open(service).await {
            Ok(new) => connection.insert(new),
            Err(_) => return false,
        },
    };
    let customer = fastrand::u32(0..CUSTOMERS);
    let cents = fastrand::u32(100..100_000);
    let body = format!(r#"{{"customer":"customer-{customer:03}","cents":{cents}}}"#);
    let answer = open.post_json("/orders", &body).await;
    answer.is_ok_and(|answer| answer.status == 201)
}
