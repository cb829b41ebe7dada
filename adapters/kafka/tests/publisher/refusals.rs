use std::time::{Duration, Instant};

use onceward_core::{ErrorKind, Outcome, Publisher, Route};
use onceward_kafka::{Kafka, KafkaConfig};
use onceward_testkit::kafka::Kafka as Broker;
use onceward_testkit::unique;

use crate::support::*;
use crate::topic;

fn error_kind(outcome: &Outcome) -> Option<ErrorKind> {
    match outcome {
        Outcome::Failed(error) | Outcome::Suspect(error) => Some(error.kind),
        Outcome::Confirmed | Outcome::Unconfirmed => None,
    }
}

/// What is offered together goes together, however busy the machine is: requests are full, or wait.
fn patient(broker: &Broker) -> KafkaConfig {
    KafkaConfig::new(broker.brokers()).property("linger.ms", "500")
}

/// Opens a session that has read the topic's limit, then lowers the limit behind its back.
async fn lowered(
    broker: &Broker,
    topic: &str,
    config: KafkaConfig,
) -> onceward_kafka::KafkaPublisher {
    let kafka = Kafka::new(config).unwrap();
    let mut session = kafka.publisher();
    let first = publish(&mut session, &numbered(topic, 1, &[], 0)).await;
    assert!(first.all_confirmed(), "{first:?}");
    alter(broker.brokers(), topic, &[("max.message.bytes", "20000")]).await;
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_one_request_makes_suspects_of_all_in_it_and_stores_none() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[]).await;
    let mut session = lowered(broker, &topic, patient(broker)).await;

    let receipts = publish(&mut session, &numbered(&topic, 12, &[5], 50_000)).await;

    assert_eq!(letters(&receipts), "s".repeat(12));
    assert_eq!(receipts.session_over().unwrap().kind, ErrorKind::TooLarge);
    assert_eq!(
        stored_in_one(broker.brokers(), &topic).await,
        numbers(1..=1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_in_the_middle_of_several_requests_lets_nothing_of_the_key_pass() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[]).await;
    let config = patient(broker).property("batch.num.messages", "3");
    let mut session = lowered(broker, &topic, config).await;

    let receipts = publish(&mut session, &numbered(&topic, 18, &[5], 50_000)).await;

    assert_eq!(letters(&receipts), "cccsssuuuuuuuuuuuu");
    let stored = stored_in_one(broker.brokers(), &topic).await;
    assert_eq!(stored[1..], numbers(1..=3));
    let again = publish(&mut session, &numbered(&topic, 1, &[], 0)).await;
    assert!(again.session_over().is_some() && letters(&again) == "u");
}

#[tokio::test(flavor = "multi_thread")]
async fn suspects_offered_one_by_one_give_the_guilty_away() {
    let broker = Broker::shared().await;
    for compression in ["none", "gzip"] {
        let topic = topic(broker, &[]).await;
        let config = KafkaConfig::new(broker.brokers()).property("compression.type", compression);
        let kafka = Kafka::new(config).unwrap();
        let mut messages = numbered(&topic, 4, &[], 0);
        // Does not get smaller by compression.
        let mut random = 1_u32;
        let mut byte = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            random.to_be_bytes()[0]
        };
        let noise: Vec<u8> = std::iter::repeat_with(&mut byte).take(60_000).collect();
        messages[2] = outgoing(&topic, Some("k"), noise);
        alter(broker.brokers(), &topic, &[("max.message.bytes", "20000")]).await;

        let mut outcomes = String::new();
        let mut session = kafka.publisher();
        for message in &messages {
            let receipts = publish(&mut session, std::slice::from_ref(message)).await;
            outcomes.push_str(&letters(&receipts));
            if let Some(kind) = error_kind(&receipts.outcomes()[0]) {
                assert_eq!(kind, ErrorKind::TooLarge);
                assert!(receipts.session_over().is_some());
                session = kafka.publisher();
            }
        }

        assert_eq!(outcomes, "ccfc", "compression {compression}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_a_known_limit_is_held_back_and_nothing_of_its_key_follows() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[("max.message.bytes", "20000")]).await;
    let mut session = kafka(broker.brokers()).publisher();

    let receipts = publish(&mut session, &numbered(&topic, 9, &[5], 50_000)).await;

    assert_eq!(letters(&receipts), "ccccfuuuu");
    assert_eq!(
        error_kind(&receipts.outcomes()[4]),
        Some(ErrorKind::TooLarge)
    );
    assert!(receipts.session_over().is_some());
    assert_eq!(
        stored_in_one(broker.brokers(), &topic).await,
        numbers(1..=4)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_that_is_compared_with_the_limit_is_that_of_the_broker_to_the_byte() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[("max.message.bytes", "5000")]).await;
    let kafka = kafka(broker.brokers());
    let fits = async |bytes: usize| {
        let mut session = kafka.publisher();
        let message = outgoing(&topic, Some("k"), vec![b'x'; bytes]);
        let receipts = publish(&mut session, &[message]).await;
        letters(&receipts) == "c"
    };
    let (mut low, mut high) = (3_000, 5_000);
    assert!(fits(low).await && !fits(high).await);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if fits(middle).await {
            low = middle
        } else {
            high = middle
        }
    }

    // What we hold back at that size, the broker refuses as well: a session that has not read the lower limit sends it.
    let mut blind = kafka.publisher();
    alter(
        broker.brokers(),
        &topic,
        &[("max.message.bytes", "1000000")],
    )
    .await;
    blind.check(&[Route::new(&topic)]).await;
    let warm = publish(&mut blind, &[outgoing(&topic, Some("k"), b"x".to_vec())]).await;
    assert!(warm.all_confirmed());
    alter(broker.brokers(), &topic, &[("max.message.bytes", "5000")]).await;
    let refused = publish(&mut blind, &[outgoing(&topic, Some("k"), vec![b'x'; high])]).await;
    assert_eq!(letters(&refused), "f");
    assert_eq!(
        error_kind(&refused.outcomes()[0]),
        Some(ErrorKind::TooLarge)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_limit_is_seen_before_a_message_is_given_up() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[("max.message.bytes", "20000")]).await;
    let kafka = kafka(broker.brokers());
    let large = numbered(&topic, 1, &[1], 50_000);
    let refused = publish(&mut kafka.publisher(), &large).await;
    assert_eq!(letters(&refused), "f");

    alter(broker.brokers(), &topic, &[("max.message.bytes", "100000")]).await;
    let mut last = String::new();
    // The first session may still end because its requests would be larger than the limit that it had read.
    for _ in 0..2 {
        last = letters(&publish(&mut kafka.publisher(), &large).await);
    }

    assert_eq!(last, "c");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_messages_to_a_topic_with_a_small_limit_are_all_taken() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[("max.message.bytes", "2000")]).await;
    let mut session = kafka(broker.brokers()).publisher();

    let receipts = publish(&mut session, &numbered(&topic, 500, &[], 0)).await;

    assert!(receipts.all_confirmed(), "{}", letters(&receipts));
    assert_eq!(
        stored_in_one(broker.brokers(), &topic).await,
        numbers(1..=500)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_names_the_guilty_record_spares_its_neighbours() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[("cleanup.policy", "compact")]).await;
    let mut messages = numbered(&topic, 5, &[], 0);
    let kafka = Kafka::new(patient(broker)).unwrap();

    messages[2] = outgoing(&topic, None, b"no key".to_vec());
    let one = publish(&mut kafka.publisher(), &messages).await;
    messages[4] = outgoing(&topic, None, b"no key".to_vec());
    let receipts = publish(&mut kafka.publisher(), &messages).await;

    // librdkafka passes the names on only if there are two of them.
    assert_eq!(letters(&one), "sssss");
    assert_eq!(letters(&receipts), "uufuf");
    assert_eq!(
        error_kind(&receipts.outcomes()[2]),
        Some(ErrorKind::Rejected)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_the_topic_does_not_accept_is_no_fault_of_the_message() {
    let broker = Broker::shared().await;
    let topic = topic(broker, &[("message.timestamp.before.max.ms", "0")]).await;
    let kafka = Kafka::new(patient(broker)).unwrap();
    let messages = numbered(&topic, 3, &[], 0);

    let together = publish(&mut kafka.publisher(), &messages).await;
    let alone = publish(&mut kafka.publisher(), &messages[..1]).await;

    // Of several, librdkafka only says that they are refused. Each is offered alone then, and learns why.
    assert_eq!(letters(&together), "sss");
    assert_eq!(letters(&alone), "f");
    assert_eq!(error_kind(&alone.outcomes()[0]), Some(ErrorKind::Throttled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_told_and_holds_up_no_other() {
    let broker = Broker::shared().await;
    let known = topic(broker, &[]).await;
    let missing = unique("missing");
    let mut session = kafka(broker.brokers()).publisher();
    let messages = [
        outgoing(&missing, Some("k"), b"1".to_vec()),
        outgoing(&known, Some("k"), b"1".to_vec()),
        outgoing(&missing, Some("k"), b"2".to_vec()),
    ];

    let begin = Instant::now();
    let receipts = publish(&mut session, &messages).await;

    assert!(
        begin.elapsed() < Duration::from_secs(15),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(letters(&receipts), "fcf");
    assert_eq!(
        error_kind(&receipts.outcomes()[0]),
        Some(ErrorKind::UnknownTopic)
    );
    assert_eq!(
        receipts.session_over().unwrap().kind,
        ErrorKind::UnknownTopic
    );
}
