//! Acks, extends and gives back, ten deliveries a call, and looks at what became of each.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
};
use onceward_core::{Acker, PublishError, SubscribeError, SubscribeErrorKind};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::info;

use super::held::Held;
use super::shelf::Shelf;
use super::{HOLD_LIMIT, Reading};
use crate::connection::Shared;
use crate::errors::{self, Trouble};

/// Most entries of one call.
const MOST_ENTRIES: usize = 10;
/// With less than this left a delivery is not extended any more: SQS counts whole seconds, and the call takes its time.
const LEAST_EXTENSION: Duration = Duration::from_secs(2);
/// Calls on their way at a time.
const MOST_CALLS: usize = 16;

/// What a delivery is acked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqsToken {
    pub(crate) number: u64,
    /// The place of its queue among those that the member reads.
    pub(crate) queue: usize,
    /// What it keeps order with in its queue; none in a standard queue.
    pub(crate) group: Option<Arc<str>>,
    pub(crate) receipt: Arc<str>,
    pub(crate) received: Instant,
}

/// Acks deliveries of one member.
#[derive(Debug, Clone)]
pub struct SqsAcker {
    client: Shared,
    readings: Arc<[Reading]>,
    held: Held,
    shelf: Arc<Shelf>,
    visibility: Duration,
}

/// What is asked about each delivery of a call.
#[derive(Debug, Clone, Copy)]
enum Ask {
    Delete,
    /// To be visible again after that long.
    Show(Duration),
    /// To stay invisible for that long, within the limit.
    Hide(Duration),
}

/// What became of a call: each delivery that SQS spoke of.
type Answered = Vec<(SqsToken, Result<(), BatchResultErrorEntry>)>;

/// What became of many calls.
#[derive(Debug)]
struct Answers {
    answered: Answered,
    /// Why a call failed as a whole; of what it asked about nothing is known.
    failure: Option<SubscribeError>,
}

impl Answers {
    /// The numbers of the deliveries for which SQS did what it was asked.
    fn granted(&self) -> HashSet<u64> {
        let granted = self.answered.iter().filter(|(_, result)| result.is_ok());
        granted.map(|(token, _)| token.number).collect()
    }

    /// A call that failed, or else the first refusal that is no expired delivery.
    fn into_result(self) -> Result<(), SubscribeError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let results = self.answered.iter().map(|(_, result)| result);
        let mut refusals = results.filter_map(|result| result.as_ref().err());
        match refusals.find(|entry| !errors::has_run_out(entry)) {
            Some(entry) => Err(refused(entry)),
            None => Ok(()),
        }
    }
}

impl SqsAcker {
    pub(super) fn new(
        client: Shared,
        readings: Arc<[Reading]>,
        held: Held,
        shelf: Arc<Shelf>,
        visibility: Duration,
    ) -> Self {
        Self {
            client,
            readings,
            held,
            shelf,
            visibility,
        }
    }

    /// Takes a delivery that has just come under its wings.
    pub(super) fn holds(&self, token: &SqsToken, deadline: Instant) {
        self.held.take(token.clone(), deadline);
    }

    /// Everything that is neither deleted nor given back.
    pub(super) fn everything(&self) -> Vec<SqsToken> {
        self.held.all()
    }

    /// Whether a delivery is neither deleted nor given back, and its time has not run out by `now`.
    pub(super) fn has(&self, token: &SqsToken, now: Instant) -> bool {
        self.held.has(token, now)
    }

    /// Has deliveries visible again, whatever is being received.
    pub(super) async fn show(
        &self,
        tokens: Vec<SqsToken>,
        after: Duration,
    ) -> Result<(), SubscribeError> {
        let answers = self.ask(self.held.of(tokens), Ask::Show(after)).await;
        answers.into_result()
    }

    /// Asks the same about many deliveries, ten a call, several calls at once.
    async fn ask(&self, tokens: Vec<SqsToken>, ask: Ask) -> Answers {
        let mut calls = JoinSet::new();
        let turns = Arc::new(Semaphore::new(MOST_CALLS));
        for (url, tokens) in self.calls(tokens) {
            let (client, turns) = (self.client.get(), turns.clone());
            calls.spawn(Box::pin(async move {
                let _turn = turns.acquire().await;
                call(client, url, tokens, ask).await
            }));
        }
        let mut answered = Vec::new();
        let mut failure = None;
        while let Some(call) = calls.join_next().await {
            match call {
                Ok(Ok(answer)) => answered.extend(answer),
                Ok(Err(trouble)) => failure = Some(trouble.into_subscribe_error()),
                Err(error) => failure = Some(unavailable("a call ended without an answer", error)),
            }
        }
        for (token, result) in &answered {
            self.note(token, result.as_ref().err(), ask);
        }
        Answers { answered, failure }
    }

    /// The calls for these deliveries: of one queue each, in order.
    fn calls(&self, tokens: Vec<SqsToken>) -> Vec<(String, Vec<SqsToken>)> {
        let mut by_queue: Vec<Vec<SqsToken>> = vec![Vec::new(); self.readings.len()];
        for token in tokens {
            if let Some(of_queue) = by_queue.get_mut(token.queue) {
                of_queue.push(token);
            }
        }
        let named = self.readings.iter().zip(by_queue);
        named
            .flat_map(|(reading, tokens)| {
                let chunks = tokens.chunks(MOST_ENTRIES).map(<[SqsToken]>::to_vec);
                let chunks: Vec<Vec<SqsToken>> = chunks.collect();
                chunks.into_iter().map(|chunk| (reading.url.clone(), chunk))
            })
            .collect()
    }

    fn note(&self, token: &SqsToken, refused: Option<&BatchResultErrorEntry>, ask: Ask) {
        let gone = match refused {
            None => matches!(ask, Ask::Delete | Ask::Show(_)),
            Some(refused) => errors::has_run_out(refused),
        };
        if gone {
            self.held.settled(token);
        }
    }
}

async fn call(
    client: Client,
    url: String,
    tokens: Vec<SqsToken>,
    ask: Ask,
) -> Result<Answered, Trouble> {
    let failed = match ask {
        Ask::Delete => delete(&client, url, &tokens).await?,
        Ask::Show(after) | Ask::Hide(after) => change(&client, url, &tokens, after).await?,
    };
    let answered = tokens.into_iter().enumerate().map(|(place, token)| {
        let id = place.to_string();
        let refused = failed.iter().find(|refused| refused.id == id).cloned();
        (token, refused.map_or(Ok(()), Err))
    });
    Ok(answered.collect())
}

async fn delete(
    client: &Client,
    url: String,
    tokens: &[SqsToken],
) -> Result<Vec<BatchResultErrorEntry>, Trouble> {
    let entries = tokens.iter().enumerate().filter_map(|(place, token)| {
        let entry = DeleteMessageBatchRequestEntry::builder()
            .id(place.to_string())
            .receipt_handle(&*token.receipt);
        // Both parts are there, so it can be built.
        entry.build().ok()
    });
    let call = client
        .delete_message_batch()
        .queue_url(url)
        .set_entries(Some(entries.collect()));
    let answer = call.send().await.map_err(errors::trouble)?;
    Ok(answer.failed)
}

async fn change(
    client: &Client,
    url: String,
    tokens: &[SqsToken],
    timeout: Duration,
) -> Result<Vec<BatchResultErrorEntry>, Trouble> {
    let entries = tokens.iter().enumerate().filter_map(|(place, token)| {
        let seconds = seconds(timeout.min(left(token)));
        let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
            .id(place.to_string())
            .receipt_handle(&*token.receipt)
            .visibility_timeout(seconds);
        entry.build().ok()
    });
    let call = client
        .change_message_visibility_batch()
        .queue_url(url)
        .set_entries(Some(entries.collect()));
    let answer = call.send().await.map_err(errors::trouble)?;
    Ok(answer.failed)
}

/// How long a delivery may still be held.
fn left(token: &SqsToken) -> Duration {
    HOLD_LIMIT.saturating_sub(token.received.elapsed())
}

/// Whole seconds, as SQS takes them; none of them more than was asked for, unless that is less than one.
fn seconds(duration: Duration) -> i32 {
    let whole = duration.as_secs();
    let whole = if whole == 0 && !duration.is_zero() {
        1
    } else {
        whole
    };
    i32::try_from(whole).unwrap_or(i32::MAX)
}

fn unavailable(what: &str, source: impl Into<onceward_core::BoxError>) -> SubscribeError {
    SubscribeError::with_source(SubscribeErrorKind::Unavailable, what, source)
}

fn refused(refused: &BatchResultErrorEntry) -> SubscribeError {
    let PublishError { what, .. } = errors::entry(refused);
    SubscribeError::new(SubscribeErrorKind::Unavailable, what)
}

impl Acker for SqsAcker {
    type Token = SqsToken;

    async fn ack(&self, tokens: Vec<SqsToken>) -> Result<(), SubscribeError> {
        // What an earlier try has deleted is not asked for again.
        let answers = self.ask(self.held.of(tokens), Ask::Delete).await;
        answers.into_result()
    }

    async fn give_back(
        &self,
        tokens: Vec<SqsToken>,
        after: Duration,
    ) -> Result<(), SubscribeError> {
        let tokens = if after.is_zero() {
            self.shelf.keep_returns(tokens)
        } else {
            tokens
        };
        self.show(tokens, after).await
    }

    /// What SQS has extended counts as extended, whatever became of the others. A delivery whose time has run out has no new
    /// deadline: the one that it gets has passed. Nobody holds one for longer than twelve hours in all, however often that is asked.
    async fn extend(&self, tokens: Vec<SqsToken>) -> Result<Vec<Option<Instant>>, SubscribeError> {
        let now = Instant::now();
        let is_live = |token: &&SqsToken| left(token) >= LEAST_EXTENSION;
        let live: Vec<SqsToken> = tokens.iter().filter(is_live).cloned().collect();
        let answers = self
            .ask(self.held.of(live), Ask::Hide(self.visibility))
            .await;
        let extended = answers.granted();
        if let Err(error) = answers.into_result() {
            if extended.is_empty() {
                return Err(error);
            }
            let (asked, extended) = (tokens.len(), extended.len());
            info!(asked, extended, %error, "not all deliveries could be extended");
        }
        let deadlines = tokens.iter().map(|token| {
            if extended.contains(&token.number) {
                let whole = self.visibility.min(left(token)).as_secs();
                self.held.extend(token, now + Duration::from_secs(whole));
            }
            // What is no longer held has run out or is settled.
            let deadline = self.held.deadline(token).unwrap_or(now);
            Some(deadline.min(token.received + HOLD_LIMIT))
        });
        Ok(deadlines.collect())
    }

    fn rest(&self, resting: bool) {
        self.shelf.rest(resting);
    }
}

#[cfg(test)]
mod tests;
