use std::time::Duration;

use onceward_core::{SubscribeErrorKind, Subscriber as _};
use onceward_nats::{NatsSubscriber, SubscriberConfig};
use onceward_testkit::nats::Nats;

use crate::Shop;

#[tokio::test]
async fn partitions_that_are_none_are_refused() {
    let nats = Nats::shared().await;
    let shop = Shop::open(nats).await;
    let name = &shop.name;
    for (subjects, words) in [
        (vec![format!("{name}.{{partition/0}}")], "from 1 to 256"),
        (
            vec![
                format!("{name}.a.{{partition/8}}"),
                format!("{name}.b.{{partition/4}}"),
            ],
            "same number of partitions",
        ),
        (vec![format!("{name}.p{{partition/8}}")], "whole token"),
    ] {
        let config = SubscriberConfig::new("billing", subjects.clone());

        let error = NatsSubscriber::join(&shop.config, config)
            .await
            .unwrap_err();

        assert_eq!(error.kind, SubscribeErrorKind::Misconfigured);
        assert!(error.what.contains(words), "{subjects:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_durable_of_a_partition_that_reads_other_subjects_is_refused() {
    let nats = Nats::shared().await;
    let shop = Shop::open(nats).await;
    let subject = format!("{}.orders.5", shop.name);
    let plain = SubscriberConfig::new("billing-5", [subject]);
    let other = NatsSubscriber::join(&shop.config, plain).await.unwrap();
    other.close(Duration::from_secs(5)).await;

    let error = NatsSubscriber::join(&shop.config, shop.member())
        .await
        .unwrap_err();

    assert_eq!(error.kind, SubscribeErrorKind::Misconfigured);
    assert!(error.what.contains("billing-5"), "{error:?}");
}
