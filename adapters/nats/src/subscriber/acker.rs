//! Acks, by the subject that each delivery carries.

use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use async_nats::{Client, Subject};
use bytes::Bytes;
use onceward_core::{Acker, SubscribeError, SubscribeErrorKind};
use tokio::sync::mpsc;

use super::durable::unavailable;
use super::member::Command;

/// How long the server may take to read what it is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a delivery is acked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsToken {
    pub(crate) reply: Subject,
    pub(crate) ownership: u64,
}

/// Acks deliveries of one member.
#[derive(Debug, Clone)]
pub struct NatsAcker {
    client: Client,
    ack_wait: Duration,
    commands: mpsc::UnboundedSender<Command>,
}

impl NatsAcker {
    pub(crate) fn new(
        client: Client,
        ack_wait: Duration,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self {
            client,
            ack_wait,
            commands,
        }
    }

    /// Tells the server about each delivery, and returns once that has left this process.
    ///
    /// While the connection is down it is kept, for the old subjects are good on the next connection too, but a caller
    /// is not held for as long as that takes.
    async fn tell(&self, tokens: Vec<NatsToken>, what: Bytes) -> Result<(), SubscribeError> {
        let told = async {
            for token in tokens {
                let sent = self.client.publish(token.reply, what.clone()).await;
                sent.map_err(not_told)?;
            }
            self.client.flush().await.map_err(not_told)
        };
        match tokio::time::timeout(PATIENCE, told).await {
            Ok(told) => told,
            Err(late) => Err(not_told(late)),
        }
    }
}

fn not_told(error: impl Into<onceward_core::BoxError>) -> SubscribeError {
    SubscribeError::with_source(
        SubscribeErrorKind::Unavailable,
        "NATS cannot be told",
        error,
    )
}

impl Acker for NatsAcker {
    type Token = NatsToken;

    /// Plain acks: what is lost of them is delivered again and dropped by its mark, and asking for an answer to each would
    /// cost a round trip per message. The flush tells that they have left this process.
    async fn ack(&self, tokens: Vec<NatsToken>) -> Result<(), SubscribeError> {
        self.tell(tokens, AckKind::Ack.into()).await
    }

    /// Takes the durable back to its oldest unacked message once `after` has passed, so that what is given back comes again
    /// before anything behind it. The server's own negative ack with a delay would let later messages of the key pass.
    async fn give_back(
        &self,
        tokens: Vec<NatsToken>,
        after: Duration,
    ) -> Result<(), SubscribeError> {
        let Some(ownership) = tokens.iter().map(|token| token.ownership).max() else {
            return Ok(());
        };
        let sent = self.commands.send(Command::GoBack { ownership, after });
        sent.map_err(|_| unavailable("the member has ended".to_owned()))
    }

    async fn extend(&self, tokens: Vec<NatsToken>) -> Result<Vec<Option<Instant>>, SubscribeError> {
        let deadline = Instant::now() + self.ack_wait;
        let count = tokens.len();
        self.tell(tokens, AckKind::Progress.into()).await?;
        Ok(vec![Some(deadline); count])
    }
}
