//! Acks, by the subject that each delivery carries.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::jetstream::AckKind;
use async_nats::{Client, Subject};
use bytes::Bytes;
use onceward_core::{Acker, SubscribeError, SubscribeErrorKind};
use tokio::sync::mpsc;

use super::durable::unavailable;
use super::outside::Command;

/// How long the server may take to read what it is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a delivery is acked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsToken {
    pub(crate) place: Acked,
    pub(crate) ownership: u64,
}

/// How a delivery is acked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Acked {
    /// The server is told by this subject.
    ByReply(Subject),
    /// The server did not deliver it, so the member takes the durable past this number.
    ByMember(u64),
}

/// Acks deliveries of one member.
#[derive(Debug, Clone)]
pub struct NatsAcker {
    client: Client,
    ack_wait: Duration,
    commands: mpsc::UnboundedSender<Command>,
    last: LastAck,
}

/// The last delivery that was acked by any clone of the acker.
///
/// A lock, as ackers live in any task and the member asks once, at its end; nobody waits while holding it.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastAck(Arc<Mutex<Option<Subject>>>);

impl LastAck {
    fn note(&self, reply: &Subject) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply.clone());
    }

    /// Returns once the server has taken all acks before, at the latest after a second: it takes acks in order and answers when
    /// one that it has is repeated with an inbox.
    pub(crate) async fn settle(&self, client: &Client) {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(reply) = last {
            let answer = client.request(reply, AckKind::Ack.into());
            // Without an answer some messages may come again.
            tokio::time::timeout(Duration::from_secs(1), answer)
                .await
                .ok();
        }
    }
}

impl NatsAcker {
    pub(crate) fn new(
        client: Client,
        ack_wait: Duration,
        commands: mpsc::UnboundedSender<Command>,
        last: LastAck,
    ) -> Self {
        Self {
            client,
            ack_wait,
            commands,
            last,
        }
    }

    /// Hands what the server is told to the connection.
    ///
    /// While that is down it is kept, for the old subjects are good on the next connection too; but a caller is not held for as
    /// long as that takes.
    async fn tell(&self, tokens: Vec<NatsToken>, what: Bytes) -> Result<(), SubscribeError> {
        let told = async {
            for token in tokens {
                if let Acked::ByReply(reply) = token.place {
                    let sent = self.client.publish(reply, what.clone()).await;
                    sent.map_err(not_told)?;
                }
            }
            Ok(())
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
    /// cost a round trip per message. A member that leaves makes sure that the last ones have arrived.
    async fn ack(&self, tokens: Vec<NatsToken>) -> Result<(), SubscribeError> {
        for token in &tokens {
            match token.place {
                Acked::ByReply(ref reply) => self.last.note(reply),
                Acked::ByMember(sequence) => {
                    let ownership = token.ownership;
                    // A member that has ended passes nothing; it comes again.
                    let settled = Command::Settled {
                        ownership,
                        sequence,
                    };
                    self.commands.send(settled).ok();
                }
            }
        }
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
