//! Order per key while everything goes well.

use std::time::Duration;

use onceward_core::{Order, Publisher};

use crate::journey::{assert_all_confirmed, batch, finish, ids_by_key, message, stored_ids_by_key};
use crate::{Harness, Sharing, Verdict};

/// Messages of fifty keys, offered in many batches without waiting for receipts, lie at the broker in order per key.
pub async fn order_per_key_holds_with_many_in_flight<H: Harness>() -> Verdict {
    let broker = H::start(Sharing::Shared).await;
    let route = broker.route(3).await;
    let mut session = broker.publisher(Duration::from_secs(35)).await;
    if session.capabilities().order == Order::None {
        return Verdict::not_promised("order per key");
    }
    let messages: Vec<_> = (0..2_000_u32)
        .map(|n| message(&route, Some(&format!("key-{}", n % 50)), n))
        .collect();

    let mut pending = Vec::new();
    for chunk in messages.chunks(100) {
        pending.push(session.offer(batch(chunk)).await);
    }
    for receipts in pending {
        assert_all_confirmed(&finish(receipts).await);
    }

    let stored = broker.stored(&route).await;
    assert_eq!(stored_ids_by_key(&stored), ids_by_key(&messages));
    session.close(Duration::from_secs(5)).await;
    Verdict::Held
}
