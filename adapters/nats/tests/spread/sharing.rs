use std::collections::BTreeSet;
use std::time::Duration;

use onceward_nats::SubscriberConfig;
use onceward_testkit::nats::Nats;

use crate::Shop;
use crate::worker::{Marks, Worker, owns};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_the_partitions_evenly_as_they_come() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    // Longer than from one message to the next: something is always in work.
    let takes = Duration::from_millis(150);
    // Nothing moves because somebody is waited for in vain.
    let patient = |config: &mut SubscriberConfig| config.takeover_after = Duration::from_secs(600);

    let first = Worker::start(shop.join(patient).await, &marks, takes);
    shop.publish_until("all of one", || owns(&[&first]) == [8])
        .await;
    let second = Worker::start(shop.join(patient).await, &marks, takes);
    shop.publish_until("4 : 4", || owns(&[&first, &second]) == [4, 4])
        .await;
    let third = Worker::start(shop.join(patient).await, &marks, takes);
    shop.publish_until("2 : 3 : 3", || {
        owns(&[&first, &second, &third]) == [2, 3, 3]
    })
    .await;
    let fourth = Worker::start(shop.join(patient).await, &marks, takes);
    let all = [&first, &second, &third, &fourth];
    shop.publish_until("2 : 2 : 2 : 2", || owns(&all) == [2, 2, 2, 2])
        .await;

    marks.are(&shop.everything()).await;
    let mut owned = BTreeSet::new();
    for worker in all {
        owned.extend(worker.owned.borrow().clone());
    }
    let names = (0..8).map(|number| format!("{}/billing-{number}", shop.name));
    assert_eq!(owned, names.collect());
    // What moves is asked for, finished and acked, so that it moves without copies.
    let marks = marks.0.lock().unwrap();
    assert_eq!((marks.lost, marks.copies), (0, 0));
}
