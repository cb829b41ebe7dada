//! The network between the programs and their servers breaks: connections end, hang, or lose answers.

use std::time::Duration;

use onceward_testkit::ledger::Workload;
use onceward_testkit::nats::Nats;
use onceward_testkit::postgres::Postgres;
use onceward_testkit::proxy::Proxy;

use crate::kills::moments;
use crate::place::{behind, port};
use crate::stage::{Changes, Stage};

/// How often something breaks.
const TROUBLES: u32 = 20;

#[tokio::test]
async fn broken_hanging_and_deaf_connections_lose_double_and_reorder_nothing() {
    let (postgres, nats) = (Postgres::shared().await, Nats::shared().await);
    let stage = Stage::nats(postgres, nats).await.consumed().await;
    let (database, broker) = (port(stage.log.url()), port(nats.url()));
    let mut proxies = [
        ("relay and database", Proxy::to(database).await),
        ("relay and broker", Proxy::to(broker).await),
        ("consumer and database", Proxy::to(database).await),
        ("consumer and broker", Proxy::to(broker).await),
    ];
    let through = |of_database: usize, of_broker: usize| Changes {
        url: Some(behind(&proxies[of_database].1, stage.log.url())),
        address: Some(behind(&proxies[of_broker].1, nats.url())),
        ..Changes::default()
    };
    let relay = stage.relay(&through(0, 1));
    let consumer = stage.consumer(&through(2, 3).variable("E2E_DEADLINE_MS", "2000"));
    let writers = stage.write(Workload {
        messages: u64::MAX,
        per_second: Some(150),
        ..stage.workload()
    });
    stage.wait_until_handled(50).await;

    let mut rng = moments("troubles of the network");
    for _ in 0..TROUBLES {
        let (link, proxy) = &mut proxies[rng.usize(0..4)];
        let trouble = rng.usize(0..3);
        match trouble {
            0 => proxy.cut().await,
            1 => proxy.stall(),
            _ => proxy.swallow_answers(),
        }
        // Not a wait for anything: it is how long the trouble lasts.
        let lasts = Duration::from_millis(rng.u64(50..2_500));
        tokio::time::sleep(lasts).await;
        proxy.heal().await;
        eprintln!(
            "between {link}: {} for {lasts:?}",
            ["cut", "stalled", "deaf"][trouble]
        );
        let handled = stage.handled().await;
        stage.wait_until_handled(handled + 20).await;
    }
    writers.stop().await;

    let verdict = stage.must_be_green(&[&relay, &consumer]).await;
    assert_eq!(stage.parked().await, 0);
    eprintln!("{TROUBLES} troubles on the way\n{verdict}");
}
