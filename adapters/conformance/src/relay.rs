//! A relay in miniature: keeps the caller's side of the publisher's contract until every message is stored or set aside.

use std::collections::BTreeSet;
use std::time::Duration;

use onceward_core::{Fault, Outcome, Outgoing, Publisher, Receipts, Route};

use crate::Harness;
use crate::journey::{PATIENCE, batch, finish};

/// More sessions than any case needs.
const MOST_SESSIONS: usize = 40;
const CHUNK: usize = 100;

/// How far the messages of a case have come.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Not confirmed and not parked, in order.
    todo: Vec<Outgoing>,
    /// Ids that the broker refused for themselves.
    pub(crate) parked: BTreeSet<String>,
    /// Ids that were refused together with others.
    suspects: BTreeSet<String>,
}

impl Relay {
    pub(crate) fn of(messages: &[Outgoing]) -> Self {
        Self {
            todo: messages.to_vec(),
            parked: BTreeSet::new(),
            suspects: BTreeSet::new(),
        }
    }

    /// Takes the receipts of an offer of `offered` into account.
    pub(crate) fn note(&mut self, offered: &[Outgoing], receipts: &Receipts) {
        for (outgoing, outcome) in offered.iter().zip(receipts.outcomes()) {
            let id = outgoing.message.id.to_string();
            let done = match outcome {
                Outcome::Confirmed => true,
                Outcome::Failed(error) if error.kind.fault() == Fault::Message => {
                    self.parked.insert(id.clone());
                    true
                }
                Outcome::Suspect(error) if error.kind.fault() == Fault::Message => {
                    self.suspects.insert(id.clone());
                    false
                }
                Outcome::Failed(_) | Outcome::Suspect(_) | Outcome::Unconfirmed => false,
            };
            if done {
                self.suspects.remove(&id);
                self.todo.retain(|todo| todo.message.id.to_string() != id);
            }
        }
    }

    /// Offers what is left, in sessions of its own, until nothing is.
    pub(crate) async fn finish<H: Harness>(&mut self, broker: &H, deadline: Duration) {
        for _ in 0..MOST_SESSIONS {
            if self.todo.is_empty() {
                return;
            }
            let mut session = broker.publisher(deadline).await;
            wait_until_clean(&mut session, &self.routes()).await;
            if self.suspects.is_empty() {
                self.offer_in_chunks(&mut session).await;
            } else {
                self.search(&mut session).await;
            }
            session.close(Duration::from_secs(1)).await;
        }
        panic!(
            "{} messages are left after {MOST_SESSIONS} sessions",
            self.todo.len()
        );
    }

    async fn offer_in_chunks<P: Publisher>(&mut self, session: &mut P) {
        let todo = self.todo.clone();
        let mut pending = Vec::new();
        for chunk in todo.chunks(CHUNK) {
            pending.push((chunk, session.offer(batch(chunk)).await));
        }
        for (chunk, receipts) in pending {
            self.note(chunk, &finish(receipts).await);
        }
    }

    /// One by one, in order, until the last suspect is cleared or found guilty; or until something else stops the session.
    async fn search<P: Publisher>(&mut self, session: &mut P) {
        for outgoing in self.todo.clone() {
            if self.suspects.is_empty() {
                return;
            }
            let alone = std::slice::from_ref(&outgoing);
            let receipts = finish(session.offer(batch(alone)).await).await;
            self.note(alone, &receipts);
            if !receipts.all_confirmed() {
                return;
            }
        }
    }

    fn routes(&self) -> Vec<Route> {
        let routes: BTreeSet<Route> = self.todo.iter().map(|todo| todo.route.clone()).collect();
        routes.into_iter().collect()
    }
}

/// A session of that deadline of which the broker has confirmed `first`. A server that has only begun may take longer for its first answers
/// than a case's deadline is: then another session begins.
pub(crate) async fn session_in_use<H: Harness>(
    broker: &H,
    deadline: Duration,
    first: &[Outgoing],
) -> H::Publisher {
    for _ in 0..MOST_SESSIONS {
        let mut session = broker.publisher(deadline).await;
        let routes: Vec<Route> = first.iter().map(|first| first.route.clone()).collect();
        wait_until_clean(&mut session, &routes).await;
        let receipts = finish(session.offer(batch(first)).await).await;
        if receipts.all_confirmed() {
            return session;
        }
        session.close(Duration::from_secs(1)).await;
    }
    panic!("nothing is confirmed in {MOST_SESSIONS} sessions");
}

/// Waits until the destination says that it can be published to.
pub(crate) async fn wait_until_clean<P: Publisher>(session: &mut P, routes: &[Route]) {
    let clean = async {
        loop {
            let reports = session.check(routes).await;
            if reports.iter().all(|report| report.state.is_ok()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, clean)
        .await
        .expect("the destination becomes reachable");
}
