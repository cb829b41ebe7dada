//! Reads a JetStream stream from its first message to the last that is there when it begins.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream::Stream};
use futures_util::StreamExt as _;

use super::{Arrival, TapError};

const ONE_MESSAGE_TAKES_AT_MOST: Duration = Duration::from_secs(10);

pub(super) async fn count(url: &str, stream: &str) -> Result<u64, TapError> {
    Ok(open(url, stream).await?.cached_info().state.last_sequence)
}

pub(super) async fn all(url: &str, name: &str) -> Result<Vec<Arrival>, TapError> {
    let stream = open(url, name).await?;
    let state = &stream.cached_info().state;
    if state.messages != state.last_sequence {
        return Err(format!("stream {name} has forgotten messages: it cannot be judged").into());
    }
    let (partition, last) = (Arc::<str>::from(name), state.last_sequence);
    let mut arrivals = Vec::new();
    if last == 0 {
        return Ok(arrivals);
    }
    // An ephemeral reader of our own, without acknowledgements: it changes nothing.
    let config = consumer::pull::OrderedConfig {
        deliver_policy: consumer::DeliverPolicy::All,
        ..Default::default()
    };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    loop {
        let next = tokio::time::timeout(ONE_MESSAGE_TAKES_AT_MOST, messages.next()).await?;
        let message = next.ok_or("the stream's reader ended")??;
        let position = message.info()?.stream_sequence;
        arrivals.push(arrival(&message, Arc::clone(&partition), position));
        if position >= last {
            return Ok(arrivals);
        }
    }
}

async fn open(url: &str, name: &str) -> Result<Stream, TapError> {
    let client =
        tokio::time::timeout(ONE_MESSAGE_TAKES_AT_MOST, async_nats::connect(url)).await??;
    Ok(jetstream::new(client).get_stream(name).await?)
}

fn arrival(message: &jetstream::Message, partition: Arc<str>, position: u64) -> Arrival {
    let header = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str());
    Arrival {
        id: header("ce-id").and_then(|id| id.parse().ok()),
        key: header("ce-partitionkey").map(str::to_owned),
        payload: message.payload.to_vec(),
        partition,
        position,
    }
}
