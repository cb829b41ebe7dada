//! The tasks that tell the broker what is settled, and what is to be held, many at a time.

use std::time::Duration;

use onceward_core::{Acker, Backoff, SubscribeError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tracing::{debug, info};

use super::Event;
use crate::faults::{Failpoint, pass};
use crate::trouble::chain;

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);

/// How often an ack is tried. One that is lost is no harm: the delivery comes again, and its mark drops it.
const TRIES: u32 = 5;

const BETWEEN: Backoff = Backoff {
    base: Duration::from_millis(100),
    max: Duration::from_secs(2),
};

/// How many are told at a time, at most.
const MOST: usize = 1_024;

/// What is to be told to the broker besides acks.
#[derive(Debug)]
pub(super) enum Errand<T> {
    GiveBack(Vec<T>),
    Extend(Vec<(u64, T)>),
    /// Receive nothing more, or again.
    Rest(bool),
}

/// The way to the tasks. Acks have a task of their own: while they fail, everything in work must still be extended in time, and what is
/// left be given back.
///
/// So an ack and another errand may pass one another. Of one delivery that does no harm: it is either acked or given back, never both,
/// and more time for one that is acked is asked for in vain. Of several, what is given back may come to the broker before an ack that
/// was sent earlier; at worst that one is delivered once more, and its mark drops it.
#[derive(Debug)]
pub(super) struct Errands<T> {
    // Not bounded themselves: what is in them is in flight, and that is.
    acks: UnboundedSender<(u64, T)>,
    others: UnboundedSender<Errand<T>>,
}

impl<T: Clone + Send + Sync + 'static> Errands<T> {
    /// Starts the tasks. They run until this is dropped and the last errand is done.
    pub(super) fn start<A: Acker<Token = T>>(
        acker: A,
        events: &UnboundedSender<Event<T>>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (acks, to_ack) = unbounded_channel();
        let (others, to_run) = unbounded_channel();
        tasks.spawn(run_acks(acker.clone(), to_ack, events.clone()));
        tasks.spawn(run_others(acker, to_run, events.clone()));
        Self { acks, others }
    }

    pub(super) fn ack(&self, number: u64, token: T) {
        // Fails only when the task has ended, which the loop sees by itself.
        drop(self.acks.send((number, token)));
    }

    pub(super) fn run(&self, errand: Errand<T>) {
        // As above.
        drop(self.others.send(errand));
    }
}

async fn run_acks<A: Acker>(
    acker: A,
    mut acks: UnboundedReceiver<(u64, A::Token)>,
    events: UnboundedSender<Event<A::Token>>,
) {
    let mut batch = Vec::new();
    while acks.recv_many(&mut batch, MOST).await > 0 {
        let (numbers, tokens) = batch.drain(..).unzip();
        ack(&acker, tokens).await;
        drop(events.send(Event::Acked(numbers)));
    }
}

/// In their order: what is given back must not be asked more time for after that.
async fn run_others<A: Acker>(
    acker: A,
    mut errands: UnboundedReceiver<Errand<A::Token>>,
    events: UnboundedSender<Event<A::Token>>,
) {
    let mut batch = Vec::new();
    while errands.recv_many(&mut batch, MOST).await > 0 {
        let mut extends = Vec::new();
        let mut returns = Vec::new();
        for errand in batch.drain(..) {
            match errand {
                Errand::GiveBack(tokens) => returns.extend(tokens),
                Errand::Extend(tokens) => extends.extend(tokens),
                // Before what is given back, which must not come to this member again.
                Errand::Rest(resting) => acker.rest(resting),
            }
        }
        if !extends.is_empty() {
            let (numbers, tokens) = extends.into_iter().unzip();
            let deadlines = call(acker.extend(tokens)).await;
            if let Some(Err(error)) = &deadlines {
                info!(error = %chain(error), "deliveries could not be extended");
            }
            let deadlines = deadlines.and_then(Result::ok);
            drop(events.send(Event::Extended(numbers, deadlines)));
        }
        if !returns.is_empty() {
            // Best effort: they come again in any case.
            drop(call(acker.give_back(returns, Duration::ZERO)).await);
        }
    }
}

async fn ack<A: Acker>(acker: &A, tokens: Vec<A::Token>) {
    for attempt in 1..=TRIES {
        match call(acker.ack(tokens.clone())).await {
            Some(Ok(())) => {
                pass(Failpoint::AfterAck);
                return;
            }
            Some(Err(error)) => debug!(attempt, error = %chain(&error), "an ack failed"),
            None => debug!(attempt, "an ack had no answer"),
        }
        if attempt < TRIES {
            tokio::time::sleep(BETWEEN.delay(attempt, 0.5 + fastrand::f64() / 2.0)).await;
        }
    }
    info!(
        count = tokens.len(),
        "settled deliveries could not be acked; they come again and are dropped"
    );
}

/// None: no answer in time.
async fn call<T>(
    answer: impl Future<Output = Result<T, SubscribeError>>,
) -> Option<Result<T, SubscribeError>> {
    tokio::time::timeout(CALL, answer).await.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use tokio::sync::Semaphore;

    use super::*;

    /// Notes what it does. Acks wait for a permit.
    #[derive(Debug, Clone)]
    struct Slow {
        acks: Arc<Semaphore>,
        did: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Slow {
        fn note(&self, what: &'static str) {
            self.did.lock().unwrap().push(what);
        }
    }

    impl Acker for Slow {
        type Token = u64;

        async fn ack(&self, _: Vec<u64>) -> Result<(), SubscribeError> {
            self.acks.acquire().await.unwrap().forget();
            self.note("ack");
            Ok(())
        }

        async fn give_back(&self, _: Vec<u64>, _: Duration) -> Result<(), SubscribeError> {
            self.note("give back");
            Ok(())
        }

        async fn extend(&self, tokens: Vec<u64>) -> Result<Vec<Option<Instant>>, SubscribeError> {
            self.note("extend");
            Ok(vec![None; tokens.len()])
        }

        fn rest(&self, _: bool) {
            self.note("rest");
        }
    }

    #[tokio::test]
    async fn while_acks_have_no_answer_deliveries_are_extended_and_given_back_and_the_end_waits_for_all()
     {
        let slow = Slow {
            acks: Arc::new(Semaphore::new(0)),
            did: Arc::default(),
        };
        let (events, mut told) = unbounded_channel();
        let mut tasks = JoinSet::new();
        let errands = Errands::start(slow.clone(), &events, &mut tasks);

        errands.ack(1, 1);
        errands.run(Errand::Extend(vec![(2, 2)]));
        errands.run(Errand::GiveBack(vec![3]));
        errands.run(Errand::Rest(true));
        drop(errands);
        // Long before an ack is given up on.
        let first = tokio::time::timeout(CALL / 2, told.recv()).await.unwrap();
        assert!(matches!(first, Some(Event::Extended(numbers, Some(_))) if numbers == [2]));
        let others_ended = tokio::time::timeout(CALL / 2, tasks.join_next()).await;
        assert!(others_ended.is_ok());
        assert!(tasks.try_join_next().is_none(), "an ack is on its way");
        slow.acks.add_permits(1);
        tasks.join_all().await;

        let second = told.recv().await;
        assert!(matches!(second, Some(Event::Acked(numbers)) if numbers == [1]));
        let did = slow.did.lock().unwrap().clone();
        assert_eq!(did, ["rest", "extend", "give back", "ack"]);
    }
}
