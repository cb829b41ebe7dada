//! The task of a member: polls its queues as long as there is room, gives back what it is told to, and everything when it leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_sqs::types::Message;
use onceward_core::Backoff;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, warn};

use super::Reading;
use super::acker::SqsAcker;
use super::poll::{self, Poll};
use super::returns::{self, Return};
use super::shelf::Shelf;
use crate::config::SubscriberConfig;
use crate::connection::{Shared, Sqs};
use crate::errors::Trouble;

/// Most messages that one poll brings.
const MOST_MESSAGES: usize = 10;

const BETWEEN_FAILURES: Backoff = Backoff {
    base: Duration::from_millis(100),
    max: Duration::from_secs(5),
};

/// A poll that has ended.
struct Polled {
    queue: usize,
    asked: usize,
    answer: Result<Vec<Message>, Trouble>,
}

/// The polls of one queue.
#[derive(Debug, Clone, Copy)]
struct Polls {
    under_way: usize,
    /// One while the queue has little, more while polls come back full.
    most: usize,
}

/// What the member waits for.
enum Event {
    Polled(Result<Polled, JoinError>),
    /// With what could not be given back.
    GivenBack(Result<Vec<Return>, JoinError>),
    Leave(Option<oneshot::Sender<()>>),
    Look,
}

pub(super) struct Member {
    sqs: Sqs,
    client: Shared,
    readings: Arc<[Reading]>,
    config: SubscriberConfig,
    shelf: Arc<Shelf>,
    acker: SqsAcker,
    commands: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    polls: Vec<Polls>,
    /// Messages that the polls under way may bring.
    asked: usize,
    calls: JoinSet<Polled>,
    next_number: u64,
    failures: u32,
    /// No poll before.
    not_before: Option<Instant>,
    /// One at a time, beside the polls. What it could not give back goes to the shelf again.
    giving_back: JoinSet<Vec<Return>>,
    /// Nothing is given back before.
    no_return_before: Option<Instant>,
}

impl Member {
    pub(super) fn new(
        sqs: Sqs,
        client: Shared,
        readings: Arc<[Reading]>,
        config: SubscriberConfig,
        shelf: Arc<Shelf>,
        acker: SqsAcker,
        commands: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    ) -> Self {
        let polls = Polls {
            under_way: 0,
            most: 1,
        };
        Self {
            sqs,
            client,
            polls: vec![polls; readings.len()],
            readings,
            config,
            shelf,
            acker,
            commands,
            asked: 0,
            calls: JoinSet::new(),
            next_number: 0,
            failures: 0,
            not_before: None,
            giving_back: JoinSet::new(),
            no_return_before: None,
        }
    }

    /// Runs until told to leave, or the handle is dropped.
    pub(super) async fn run(mut self) {
        loop {
            self.give_back_returns();
            self.poll_where_it_may();
            match self.next_event().await {
                Event::Polled(polled) => self.on_polled(polled).await,
                Event::GivenBack(left) => self.on_given_back(left),
                Event::Look => self.look(Instant::now()),
                Event::Leave(Some(done)) => {
                    self.leave().await;
                    done.send(()).ok();
                    return;
                }
                Event::Leave(None) => return,
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let waits = [self.not_before, self.no_return_before];
        let wait = waits.into_iter().flatten().min();
        tokio::select! {
            biased;
            leave = self.commands.recv() => Event::Leave(leave),
            Some(polled) = self.calls.join_next() => Event::Polled(polled),
            Some(left) = self.giving_back.join_next() => Event::GivenBack(left),
            () = self.shelf.changed() => Event::Look,
            () = tokio::time::sleep_until(wait.unwrap_or_else(Instant::now).into()), if wait.is_some() => Event::Look,
        }
    }

    /// Ends the waits that are over at `now`.
    fn look(&mut self, now: Instant) {
        self.not_before = self.not_before.filter(|at| *at > now);
        self.no_return_before = self.no_return_before.filter(|at| *at > now);
    }

    /// A poll under way would take at once what is given back meanwhile, so its end is waited for.
    fn give_back_returns(&mut self) {
        if self.no_return_before.is_some() || !self.giving_back.is_empty() {
            return;
        }
        let returns = self.shelf.take_returns(!self.calls.is_empty());
        if !returns.is_empty() {
            let acker = self.acker.clone();
            self.giving_back
                .spawn(Box::pin(returns::give_back(acker, returns)));
        }
    }

    fn on_given_back(&mut self, left: Result<Vec<Return>, JoinError>) {
        // Nobody aborts it while the member lives: an error is a panic. What it had comes again once its visibility has run out.
        let left = left.unwrap_or_else(|error| {
            warn!(%error, "giving back ended by a panic");
            Vec::new()
        });
        let Some(tries) = left.iter().map(|one| one.tries).max() else {
            return;
        };
        let delay = BETWEEN_FAILURES.delay(tries, 0.5 + fastrand::f64() / 2.0);
        self.no_return_before = Some(Instant::now() + delay);
        self.shelf.put_back(left);
    }

    fn poll_where_it_may(&mut self) {
        if self.not_before.is_some() || self.shelf.is_resting() {
            return;
        }
        for queue in 0..self.readings.len() {
            let Some(reading) = self.readings.get(queue) else {
                return;
            };
            while self.polls[queue].under_way < self.polls[queue].most
                && !self.shelf.is_paused(&reading.partition)
            {
                let taken = self.shelf.len() + self.asked;
                let room = self.config.buffer.max(1).saturating_sub(taken);
                if room == 0 {
                    return;
                }
                let most = room.min(MOST_MESSAGES);
                let poll = Poll {
                    most,
                    wait: self.config.wait,
                    visibility: self.config.visibility,
                    timeout: self.sqs.config().request_timeout,
                };
                let (client, url) = (self.client.get(), reading.url.clone());
                self.asked += most;
                self.polls[queue].under_way += 1;
                self.calls.spawn(Box::pin(async move {
                    Polled {
                        queue,
                        asked: most,
                        answer: poll::ask(client, url, poll).await,
                    }
                }));
            }
        }
    }

    async fn on_polled(&mut self, polled: Result<Polled, JoinError>) {
        let Ok(Polled {
            queue,
            asked,
            answer,
        }) = polled
        else {
            // Nobody aborts a poll while the member lives; whatever it was, the others go on.
            return;
        };
        self.asked -= asked;
        self.polls[queue].under_way -= 1;
        match answer {
            Ok(messages) => {
                self.failures = 0;
                self.shelf.well();
                self.polls[queue].most = match messages.len() {
                    0 => 1,
                    count if count == asked => self.config.receivers.max(1),
                    _ => self.polls[queue].most,
                };
                self.take(queue, messages);
            }
            Err(trouble) => self.on_trouble(trouble).await,
        }
    }

    fn take(&mut self, queue: usize, messages: Vec<Message>) {
        let Some(reading) = self.readings.get(queue) else {
            return;
        };
        let received = Instant::now();
        for message in messages {
            let number = self.next_number;
            self.next_number += 1;
            let visibility = self.config.visibility;
            let delivery = poll::delivery(message, number, (queue, reading), received, visibility);
            if let Some(delivery) = delivery {
                self.acker.holds(&delivery.token, received + visibility);
                self.shelf.put(delivery);
            }
        }
    }

    async fn on_trouble(&mut self, trouble: Trouble) {
        self.failures = self.failures.saturating_add(1);
        let delay = BETWEEN_FAILURES.delay(self.failures, 0.5 + fastrand::f64() / 2.0);
        self.not_before = Some(Instant::now() + delay);
        debug!(
            failures = self.failures,
            what = trouble.what,
            "a poll failed"
        );
        if trouble.credentials {
            let timeout = self.sqs.config().request_timeout;
            // Without new ones the old ones are tried again.
            if let Ok(client) = tokio::time::timeout(timeout, self.sqs.client()).await {
                self.client.set(client);
            }
        }
        self.shelf.fail(trouble.into_subscribe_error());
    }

    /// Gives back what is held, and what the polls under way still bring: one that is broken off may take messages along at SQS.
    async fn leave(&mut self) {
        self.shelf.end();
        loop {
            let held = self.acker.everything();
            if !held.is_empty() {
                // Best effort: what cannot be given back comes again in its own time.
                self.acker.show(held, Duration::ZERO).await.ok();
            }
            match self.calls.join_next().await {
                Some(Ok(Polled { queue, answer, .. })) => {
                    self.take(queue, answer.unwrap_or_default());
                }
                Some(Err(_)) => {}
                None => return,
            }
        }
    }
}
