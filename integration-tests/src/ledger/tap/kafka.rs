//! Reads Kafka topics from the first offset of each partition to the end that is there when it begins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{Arrival, TapError};

const ANSWER_TAKES_AT_MOST: Duration = Duration::from_secs(10);
const SILENCE_AT_MOST: Duration = Duration::from_secs(10);

/// One partition, and the end of it.
struct Partition {
    topic: String,
    number: i32,
    label: Arc<str>,
    end: i64,
}

pub(super) fn count(brokers: &str, topics: &[String]) -> Result<u64, TapError> {
    let ends: i64 = partitions(&client(brokers)?, topics)?
        .iter()
        .map(|partition| partition.end)
        .sum();
    Ok(u64::try_from(ends).unwrap_or(0))
}

pub(super) fn all(brokers: &str, topics: &[String]) -> Result<Vec<Arrival>, TapError> {
    let consumer = client(brokers)?;
    let partitions = partitions(&consumer, topics)?;
    let mut assignment = TopicPartitionList::new();
    let mut missing = BTreeMap::new();
    for partition in partitions.iter().filter(|partition| partition.end > 0) {
        assignment.add_partition_offset(&partition.topic, partition.number, Offset::Beginning)?;
        missing.insert((partition.topic.clone(), partition.number), partition);
    }
    consumer.assign(&assignment)?;

    let mut arrivals = Vec::new();
    let mut heard = Instant::now();
    while !missing.is_empty() {
        if heard.elapsed() > SILENCE_AT_MOST {
            return Err("the broker sends nothing more, and the end is not reached".into());
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = message?;
        heard = Instant::now();
        let place = (message.topic().to_owned(), message.partition());
        // What came after the end was read is left for the next time.
        let Some(partition) = missing.get(&place) else {
            continue;
        };
        arrivals.push(arrival(&message, Arc::clone(&partition.label)));
        if message.offset() + 1 >= partition.end {
            missing.remove(&place);
        }
    }
    Ok(arrivals)
}

fn partitions(consumer: &BaseConsumer, topics: &[String]) -> Result<Vec<Partition>, TapError> {
    let mut found = Vec::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER_TAKES_AT_MOST)?;
        for partition in metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
        {
            let number = partition.id();
            let (begin, end) = consumer.fetch_watermarks(topic, number, ANSWER_TAKES_AT_MOST)?;
            if begin > 0 {
                return Err(
                    format!("topic {topic} has forgotten messages: it cannot be judged").into(),
                );
            }
            found.push(Partition {
                topic: topic.clone(),
                number,
                label: format!("{topic}/{number}").into(),
                end,
            });
        }
    }
    Ok(found)
}

fn client(brokers: &str) -> Result<BaseConsumer, TapError> {
    let consumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // Never used to commit: it changes nothing.
        .set("group.id", "ledger")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .create()?;
    Ok(consumer)
}

fn arrival(message: &BorrowedMessage<'_>, partition: Arc<str>) -> Arrival {
    let header = |name: &str| {
        let headers = message.headers()?;
        let found = headers.iter().find(|header| header.key == name)?;
        String::from_utf8(found.value?.to_vec()).ok()
    };
    Arrival {
        id: header("ce_id").and_then(|id| id.parse().ok()),
        key: message
            .key()
            .map(|key| String::from_utf8_lossy(key).into_owned()),
        payload: message.payload().unwrap_or_default().to_vec(),
        partition,
        position: u64::try_from(message.offset()).unwrap_or(0),
    }
}
