//! The task of a member: polls its queues as long as there is room, gives back what it is told to, and everything when it leaves.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward_core::Backoff;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, JoinError, JoinSet};
use tracing::{debug, warn};

use super::Reading;
use super::acker::SqsAcker;
use super::poll::{self, Poll, Received};
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

/// What a poll brought.
type Answer = Result<Received, Trouble>;

/// A poll that has ended, by its task.
type Polled = Result<(task::Id, Answer), JoinError>;

/// A poll under way.
#[derive(Debug, Clone, Copy)]
struct Asked {
    queue: usize,
    /// How many messages it may bring.
    most: usize,
}

/// What the member waits for.
enum Event {
    Polled(Polled),
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
    /// How many polls of each queue there may be: one while it has little, more while they come back full.
    most_polls: Vec<usize>,
    /// Whose turn it is to be polled.
    turn: usize,
    polls: JoinSet<Answer>,
    /// Those under way. A poll that ends in whatever way leaves its place to the next.
    asked: HashMap<task::Id, Asked>,
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
        Self {
            sqs,
            client,
            most_polls: vec![1; readings.len()],
            readings,
            config,
            shelf,
            acker,
            commands,
            turn: 0,
            polls: JoinSet::new(),
            asked: HashMap::new(),
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
            Some(polled) = self.polls.join_next_with_id() => Event::Polled(polled),
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
        let returns = self.shelf.take_returns(!self.polls.is_empty());
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
        while let Some(queue) = self.next_to_poll() {
            let taken = self.shelf.len() + self.may_come();
            let room = self.buffer().saturating_sub(taken);
            if room == 0 {
                return;
            }
            self.poll(queue, room.min(self.fair_part()));
            self.turn = queue + 1;
        }
    }

    /// The next queue in turn of which there may be one more poll.
    fn next_to_poll(&self) -> Option<usize> {
        let queues = self.readings.len();
        let mut in_turn = (0..queues).map(|step| (self.turn + step) % queues);
        in_turn.find(|queue| self.may_poll(*queue))
    }

    fn buffer(&self) -> usize {
        self.config.buffer.max(1)
    }

    /// How many messages a poll may bring, so that the buffer has room for a poll of each queue.
    fn fair_part(&self) -> usize {
        let part = self.buffer() / self.readings.len().max(1);
        part.clamp(1, MOST_MESSAGES)
    }

    /// Whether there may be one more poll of a queue.
    fn may_poll(&self, queue: usize) -> bool {
        let under_way = self.asked.values().filter(|asked| asked.queue == queue);
        under_way.count() < self.most_polls[queue]
            && !self.shelf.is_paused(&self.readings[queue].partition)
    }

    /// How many messages the polls under way may bring.
    fn may_come(&self) -> usize {
        self.asked.values().map(|asked| asked.most).sum()
    }

    fn poll(&mut self, queue: usize, most: usize) {
        let poll = Poll {
            most,
            wait: self.config.wait,
            visibility: self.config.visibility,
            timeout: self.sqs.config().request_timeout,
        };
        let (client, url) = (self.client.get(), self.readings[queue].url.clone());
        let task = self.polls.spawn(Box::pin(poll::ask(client, url, poll)));
        self.asked.insert(task.id(), Asked { queue, most });
    }

    async fn on_polled(&mut self, polled: Polled) {
        let (id, answer) = match polled {
            Ok(polled) => polled,
            Err(error) => {
                // Nobody aborts a poll while the member lives: an error is a panic. What it received comes again.
                warn!(%error, "a poll ended without an answer; the queue is polled again");
                self.asked.remove(&error.id());
                self.back_off();
                return;
            }
        };
        let Some(asked) = self.asked.remove(&id) else {
            return;
        };
        match answer {
            Ok(received) => {
                self.failures = 0;
                self.shelf.well();
                let most_polls = &mut self.most_polls[asked.queue];
                *most_polls = match received.messages.len() {
                    0 => 1,
                    count if count == asked.most => self.config.receivers.max(1),
                    _ => *most_polls,
                };
                self.take(asked.queue, received);
            }
            Err(trouble) => self.on_trouble(trouble).await,
        }
    }

    fn take(&mut self, queue: usize, Received { messages, at }: Received) {
        let Some(reading) = self.readings.get(queue) else {
            return;
        };
        for message in messages {
            let number = self.next_number;
            self.next_number += 1;
            let visibility = self.config.visibility;
            let delivery = poll::delivery(message, number, (queue, reading), at, visibility);
            if let Some(delivery) = delivery {
                self.acker.holds(&delivery.token, at + visibility);
                self.shelf.put(delivery);
            }
        }
    }

    /// Polls nothing for a while, for longer each time a poll fails in a row.
    fn back_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let delay = BETWEEN_FAILURES.delay(self.failures, 0.5 + fastrand::f64() / 2.0);
        self.not_before = Some(Instant::now() + delay);
    }

    async fn on_trouble(&mut self, trouble: Trouble) {
        self.back_off();
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
            match self.polls.join_next_with_id().await {
                Some(Ok((id, answer))) => {
                    if let (Some(asked), Ok(received)) = (self.asked.remove(&id), answer) {
                        self.take(asked.queue, received);
                    }
                }
                Some(Err(_)) => {}
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
