//! Acks, by the subject that each delivery carries.

use std::collections::BTreeMap;
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
    /// Which of the member's durables delivered it, counted from 0.
    pub(crate) number: usize,
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
    lines: Arc<[Line]>,
}

/// What an acker knows of one durable.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) ack_wait: Duration,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) last: LastAck,
}

/// The last delivery of one durable that was acked by any clone of the acker.
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
    pub(crate) fn new(client: Client, lines: Vec<Line>) -> Self {
        let lines = lines.into();
        Self { client, lines }
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
            let Some(line) = self.lines.get(token.number) else {
                continue;
            };
            match token.place {
                Acked::ByReply(ref reply) => line.last.note(reply),
                Acked::ByMember(sequence) => {
                    let ownership = token.ownership;
                    // A member that has ended passes nothing; it comes again.
                    let settled = Command::Settled {
                        ownership,
                        sequence,
                    };
                    line.commands.send(settled).ok();
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
        let mut newest = BTreeMap::new();
        for token in &tokens {
            let ownership = newest.entry(token.number).or_insert(token.ownership);
            *ownership = token.ownership.max(*ownership);
        }
        for (number, ownership) in newest {
            let line = self.lines.get(number);
            let sent = line.map(|line| line.commands.send(Command::GoBack { ownership, after }));
            if let Some(Err(_)) = sent {
                return Err(unavailable("the member has ended".to_owned()));
            }
        }
        Ok(())
    }

    async fn extend(&self, tokens: Vec<NatsToken>) -> Result<Vec<Option<Instant>>, SubscribeError> {
        let now = Instant::now();
        let deadlines = tokens.iter().map(|token| {
            let line = self.lines.get(token.number);
            line.map(|line| now + line.ack_wait)
        });
        let deadlines = deadlines.collect();
        self.tell(tokens, AckKind::Progress.into()).await?;
        Ok(deadlines)
    }
}
