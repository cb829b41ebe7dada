use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use onceward_core::Subscriber as _;
use onceward_nats::SubscriberConfig;
use onceward_testkit::nats::Nats;

use crate::worker::{Marks, NO_TIME, Worker, owns};
use crate::{PATIENCE, Shop};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_that_vanishes_had_in_work_is_taken_over_in_order() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    // Nothing comes again by itself within this test.
    let long_wait = |config: &mut SubscriberConfig| config.ack_wait = Duration::from_secs(600);
    let first = Worker::start(shop.join(long_wait).await, &marks, NO_TIME);
    let second = Worker::start(shop.join(long_wait).await, &marks, NO_TIME);
    shop.publish_until("4 : 4", || owns(&[&first, &second]) == [4, 4])
        .await;
    marks.are(&shop.everything()).await;

    first.works.send_replace(false);
    for _ in 0..10 {
        shop.publish(30).await;
    }
    let vanished = first.stop().await;
    drop(vanished);
    // No new message helps.
    marks.are(&shop.everything()).await;

    assert_eq!(second.owns(), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_closes_hands_over_at_once() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    let patient = |config: &mut SubscriberConfig| {
        config.takeover_after = Duration::from_secs(50);
        config.ack_wait = Duration::from_secs(600);
    };
    let first = Worker::start(shop.join(patient).await, &marks, NO_TIME);
    let second = Worker::start(shop.join(patient).await, &marks, NO_TIME);
    shop.publish_until("4 : 4", || owns(&[&first, &second]) == [4, 4])
        .await;

    first.works.send_replace(false);
    for _ in 0..10 {
        shop.publish(30).await;
    }
    let leaving = first.stop().await;
    let members = format!("_ONCEWARD.members.{}.billing", shop.name);
    let client = nats.client().await;
    let mut beats = client.subscribe(members).await.unwrap();
    // Once one is here, the server knows that we listen.
    let listening = tokio::time::timeout(PATIENCE, beats.next()).await;
    assert!(listening.unwrap().is_some());
    let begin = Instant::now();
    leaving.reader.close(Duration::from_secs(20)).await;
    marks.are(&shop.everything()).await;

    let took = begin.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(second.owns(), 8);
    let goodbye = async {
        while let Some(beat) = beats.next().await {
            if std::str::from_utf8(&beat.payload)
                .unwrap()
                .contains("\"leaving\":true")
            {
                return true;
            }
        }
        false
    };
    let said = tokio::time::timeout(PATIENCE, goodbye).await;
    assert!(said.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handing_over_with_work_in_flight_loses_nothing_and_keeps_the_order_of_each_key() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    let takes = Duration::from_millis(30);
    // It begins again for whatever is not acked in time.
    let hurried = |config: &mut SubscriberConfig| config.buffer = 40;

    let first = Worker::start(shop.join(hurried).await, &marks, takes);
    shop.publish_until("all of one", || owns(&[&first]) == [8])
        .await;
    let second = Worker::start(shop.join(hurried).await, &marks, takes);
    shop.publish_until("4 : 4", || owns(&[&first, &second]) == [4, 4])
        .await;
    let third = Worker::start(shop.join(hurried).await, &marks, takes);
    shop.publish_until("2 : 3 : 3", || {
        owns(&[&first, &second, &third]) == [2, 3, 3]
    })
    .await;
    // One leaves in good order with work in flight, and then another one vanishes.
    let leaving = second.stop().await;
    leaving.reader.close(Duration::from_secs(20)).await;
    shop.publish_until("4 : 4", || owns(&[&first, &third]) == [4, 4])
        .await;
    drop(first.stop().await);
    shop.publish_until("all of one", || owns(&[&third]) == [8])
        .await;

    marks.are(&shop.everything()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_released_in_time_is_lost_and_goes_on_elsewhere() {
    let nats = Nats::shared().await;
    let mut shop = Shop::open(nats).await;
    let marks = Marks::default();
    let short = |config: &mut SubscriberConfig| {
        config.revoke_within = Duration::from_millis(500);
        config.ack_wait = Duration::from_secs(600);
    };
    let first = Worker::start(shop.join(short).await, &marks, NO_TIME);
    shop.publish_until("all of one", || owns(&[&first]) == [8])
        .await;
    marks.are(&shop.everything()).await;

    first.works.send_replace(false);
    shop.publish(30).await;
    let second = Worker::start(shop.join(short).await, &marks, NO_TIME);
    let both = [&first, &second];
    shop.publish_until("4 : 4", || owns(&both) == [4, 4]).await;
    first.works.send_replace(true);

    marks.are(&shop.everything()).await;
    assert!(marks.0.lock().unwrap().lost > 0);
}
