use std::time::Duration;

use onceward_core::Subscriber as _;
use onceward_nats::NatsSubscriber;
use onceward_testkit::nats::Nats;

use crate::support::{as_user, server_with_users};
use crate::worker::{Marks, NO_TIME, Worker, owns};
use crate::{Shop, stream};

/// The rights that the adapter's documentation asks for a partitioned consumer; `mute` has them without those to be heard.
const RIGHTS: &str = r#"
      { user: heard, password: secret, permissions: {
        publish: [
          "$JS.API.STREAM.NAMES", "$JS.API.STREAM.INFO.SHOP", "$JS.API.STREAM.MSG.GET.SHOP"
          "$JS.API.CONSUMER.INFO.SHOP.*", "$JS.API.CONSUMER.CREATE.SHOP.>"
          "$JS.API.CONSUMER.RESET.SHOP.*", "$JS.API.CONSUMER.UNPIN.SHOP.*"
          "$JS.API.CONSUMER.MSG.NEXT.SHOP.*", "$JS.ACK.SHOP.>"
          "_ONCEWARD.members.SHOP.billing" ]
        subscribe: [ "_INBOX.>", "_ONCEWARD.members.SHOP.billing" ] } }
      { user: mute, password: secret, permissions: {
        publish: [ "$JS.API.>", "$JS.ACK.>" ]
        subscribe: "_INBOX.>" } }
"#;

async fn shop_with_rights() -> (Nats, Shop) {
    let (nats, jetstream) = server_with_users(RIGHTS).await;
    stream(&jetstream, "SHOP").await;
    let shop = Shop::of(as_user(&nats, "admin"), "SHOP".to_owned()).await;
    (nats, shop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_are_documented_are_enough_to_spread() {
    let (nats, mut shop) = shop_with_rights().await;
    let marks = Marks::default();
    let heard = as_user(&nats, "heard");

    let mut workers = Vec::new();
    for _ in 0..2 {
        let reader = NatsSubscriber::join(&heard, shop.member()).await.unwrap();
        workers.push(Worker::start(reader, &marks, NO_TIME));
    }
    let both = [&workers[0], &workers[1]];
    shop.publish_until("4 : 4", || owns(&both) == [4, 4]).await;

    marks.are(&shop.everything()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_may_not_hear_each_other_are_as_safe_and_read_everything() {
    let (nats, mut shop) = shop_with_rights().await;
    let marks = Marks::default();
    let mute = as_user(&nats, "mute");

    let mut workers = Vec::new();
    for _ in 0..2 {
        let reader = NatsSubscriber::join(&mute, shop.member()).await.unwrap();
        workers.push(Worker::start(reader, &marks, NO_TIME));
    }
    let both = [&workers[0], &workers[1]];
    let all = || owns(&both).iter().sum::<usize>() == 8;
    shop.publish_until("an owner for each", all).await;
    marks.are(&shop.everything()).await;
    let left = workers.remove(0).stop().await;
    left.reader.close(Duration::from_secs(20)).await;
    shop.publish_until("all of one", || workers[0].owns() == 8)
        .await;

    marks.are(&shop.everything()).await;
}
