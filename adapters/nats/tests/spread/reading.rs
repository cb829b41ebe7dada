use std::collections::BTreeMap;

use onceward_core::{Acker as _, Arrival, Key, Partition, Subscriber as _};
use onceward_nats::NatsSubscriber;
use onceward_testkit::nats::Nats;

use crate::{PATIENCE, Shop};

/// Reads until `enough` of what came, in deliveries by partition.
async fn read_until(
    reader: &mut NatsSubscriber,
    came: &mut BTreeMap<Partition, usize>,
    enough: impl Fn(&BTreeMap<Partition, usize>) -> bool,
) {
    let acker = reader.acker();
    let reading = async {
        while !enough(came) {
            for arrival in reader.next(10).await.unwrap() {
                if let Arrival::Delivery(delivery) = arrival {
                    *came.entry(delivery.origin.partition).or_default() += 1;
                    acker.ack(vec![delivery.token]).await.unwrap();
                }
            }
        }
    };
    let read = tokio::time::timeout(PATIENCE, reading).await;
    assert!(read.is_ok(), "only {came:?} came");
}

#[tokio::test]
async fn a_paused_partition_does_not_stop_the_others() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let mut reader = shop.join(|config| config.buffer = 16).await;
    let mut came = BTreeMap::new();
    let all = |came: &BTreeMap<_, usize>| came.values().sum::<usize>();
    shop.publish(30).await;
    read_until(&mut reader, &mut came, |came| all(came) == 30).await;
    let route = shop.routes.of_key(&Key::try_from("key-3").unwrap());
    let (_, of_3) = route.as_str().rsplit_once('.').unwrap();
    let paused = Partition::new(&format!("{}/billing-{of_3}", shop.name));
    let before = came[&paused];

    reader.pause(&paused, true);
    for _ in 0..20 {
        shop.publish(30).await;
    }
    let others = 21 * (30 - before);
    read_until(&mut reader, &mut came, |came| all(came) - before == others).await;
    let backlog = reader.backlog().await.unwrap();

    assert_eq!(came[&paused], before);
    assert_eq!(backlog.len(), 8);
    let of_paused = backlog.iter().find(|one| one.partition == paused).unwrap();
    assert_eq!(of_paused.count, 20 * before as u64);
    assert!(of_paused.oldest.is_some());
    reader.pause(&paused, false);
    read_until(&mut reader, &mut came, |came| came[&paused] == 21 * before).await;
}
