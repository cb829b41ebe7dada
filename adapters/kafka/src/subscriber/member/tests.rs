use std::net::TcpListener;

use super::*;
use crate::config::consumer;
use crate::{KafkaConfig, Start};

#[test]
fn however_many_partitions_are_looked_for_a_cluster_that_hangs_is_waited_for_once() {
    // Connections are taken by the system and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = KafkaConfig::new(silent.local_addr().unwrap().to_string());
    for start in [Start::Earliest, Start::Latest] {
        let subscription = KafkaSubscription::new("g", ["orders"]).start(start);
        let settings = consumer(&config, &subscription);
        let member = Member::new(Arc::new(Shared::new()), subscription);
        let consumer: BaseConsumer<Member> = settings.create_with_context(member).unwrap();
        let member = consumer.context();
        let places = (0..40).map(|number| Place {
            topic: "orders".to_owned(),
            number,
        });
        for place in places {
            member.shared.locked().assign(Assignment::new(place), None);
        }
        let began = Instant::now();

        member.resume_stuck(&consumer);

        assert!(
            began.elapsed() < Duration::from_secs(12),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(member.shared.locked().stuck().len(), 40);
    }
}
