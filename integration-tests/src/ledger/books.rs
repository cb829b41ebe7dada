//! The ledger of one run: where its three lists lie, and the verdict on them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use sqlx::postgres::PgPool;
use uuid::Uuid;

use super::facts::{Arrival, Committed, Facts};
use super::tap::{Tap, TapError};
use super::verdict::Verdict;
use super::{effects, fence, judge, workload};

/// A server may be on its way up again.
const FACTS_TAKE_AT_MOST: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Counters of a run that is under way. Cheap to ask; copies count as published here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages whose transaction committed.
    pub committed: u64,
    /// Messages in the broker, copies included.
    pub published: u64,
    /// Messages that took effect; 0 where nobody consumes.
    pub handled: u64,
}

/// Watches one run from a service's commits to a handler's effects.
#[derive(Debug, Clone)]
pub struct Ledger {
    business: PgPool,
    tap: Tap,
    effects: Option<PgPool>,
    watches_fence: bool,
    excused: BTreeSet<Uuid>,
    duplicates_allowed: Option<u64>,
    only_takeovers_repeat: bool,
    unordered: bool,
}

impl Ledger {
    /// Makes the business tables for a [`Workload`](super::Workload) in the service's database.
    ///
    /// # Panics
    /// When the database refuses.
    pub async fn open(business: &PgPool, tap: Tap) -> Self {
        workload::install(business).await;
        Self {
            business: business.clone(),
            tap,
            effects: None,
            watches_fence: false,
            excused: BTreeSet::new(),
            duplicates_allowed: None,
            only_takeovers_repeat: false,
            unordered: false,
        }
    }

    /// Looks for no order, where the broker promises none.
    #[must_use]
    pub fn unordered(mut self) -> Self {
        self.unordered = true;
        self
    }

    /// Makes the table of effects in the consumer's database, and judges by it.
    ///
    /// # Panics
    /// When the database refuses.
    #[must_use = "the effects are judged by the value returned"]
    pub async fn with_effects(mut self, pool: &PgPool) -> Self {
        effects::install(pool).await;
        self.effects = Some(pool.clone());
        self
    }

    /// Watches who claims and who checkpoints, and under which token. The product's tables must be there. Whoever is named
    /// in the verdict goes by the `application_name` in its database URL.
    ///
    /// # Panics
    /// When the database refuses.
    #[must_use = "the fence is judged by the value returned"]
    pub async fn with_fence(mut self) -> Self {
        fence::install(&self.business).await;
        self.watches_fence = true;
        self
    }

    /// Reads the service's tables from another server from now on, such as a standby that was promoted.
    pub fn move_to(&mut self, business: &PgPool) {
        self.business = business.clone();
    }

    /// Excuses a message that is given up on for a reason the test knows: parked, or dead.
    pub fn excuse(&mut self, message: Uuid) {
        self.excused.insert(message);
    }

    /// More copies than this are wrong: the window of a relay times the interruptions of the run.
    pub fn allow_duplicates(&mut self, window: u64, interruptions: u64) {
        self.duplicates_allowed = Some(window.saturating_mul(interruptions));
    }

    /// Nothing but a takeover repeats messages in this run: each may repeat once what the cursor that it began at had not
    /// passed, and every other copy is wrong. Not where a broker goes away, refuses messages or has some replayed: a session that
    /// begins again repeats what it had no report of. So does one that ends as its broker does not answer for some seconds. The fence must
    /// be watched.
    pub fn only_takeovers_repeat(&mut self) {
        assert!(self.watches_fence, "claims are noted by the fence");
        self.only_takeovers_repeat = true;
    }

    /// How far the run has come.
    ///
    /// # Errors
    /// That of the server which does not answer; ask again.
    pub async fn progress(&self) -> Result<Progress, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Progress {
            committed: workload::count(&self.business).await?,
            published: self.published().await?,
            handled: self.handled().await?,
        })
    }

    /// How many messages the broker has, copies included: [`Progress::published`] alone.
    ///
    /// # Errors
    /// That of the broker which does not answer; ask again.
    pub async fn published(&self) -> Result<u64, TapError> {
        self.tap.count().await
    }

    /// How many messages took effect: [`Progress::handled`] alone.
    ///
    /// # Errors
    /// That of the database which does not answer; ask again.
    pub async fn handled(&self) -> Result<u64, sqlx::Error> {
        match &self.effects {
            Some(pool) => effects::count(pool).await,
            None => Ok(0),
        }
    }

    /// The verdict on what is there now. Stop writers, relays and consumers first, or it judges a moving target.
    ///
    /// # Panics
    /// When a server does not answer within a minute.
    pub async fn verdict(&self) -> Verdict {
        judge(&self.facts().await)
    }

    /// The verdict as soon as all that was committed has arrived and taken effect, or else once nothing more has for `patience`;
    /// in any case after five times that. A busy machine takes its time, and that alone is no fault.
    ///
    /// # Panics
    /// As [`verdict`](Self::verdict).
    pub async fn verdict_within(&self, patience: Duration) -> Verdict {
        let begin = Instant::now();
        let (mut before, mut moved) = ((0, 0), begin);
        loop {
            let progress = self.progress().await.ok();
            let counts = progress.as_ref().map(|p| (p.published, p.handled));
            if let Some(counts) = counts.filter(|counts| *counts != before) {
                (before, moved) = (counts, Instant::now());
            }
            let over = moved.elapsed() >= patience || begin.elapsed() >= 5 * patience;
            // Reading everything is for the moment when it may be enough.
            if over || progress.is_some_and(|progress| self.may_be_complete(&progress)) {
                let verdict = self.verdict().await;
                if over || verdict.is_complete() {
                    return verdict;
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn may_be_complete(&self, progress: &Progress) -> bool {
        let excused = u64::try_from(self.excused.len()).unwrap_or(u64::MAX);
        let expected = progress.committed.saturating_sub(excused);
        progress.published >= expected && (self.effects.is_none() || progress.handled >= expected)
    }

    /// All that the verdict rests on.
    ///
    /// # Panics
    /// When a server does not answer within a minute.
    pub async fn facts(&self) -> Facts {
        let begin = Instant::now();
        loop {
            match Box::pin(self.read()).await {
                Ok(facts) => return facts,
                Err(error) if begin.elapsed() > FACTS_TAKE_AT_MOST => {
                    panic!("the ledger cannot be read: {error}")
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn read(&self) -> Result<Facts, TapError> {
        let effects = match &self.effects {
            Some(pool) => Some(effects::all(pool).await?),
            None => None,
        };
        let arrivals = self.tap.all().await?;
        // Last: what is committed while the broker is read is not phantom, at most not there yet.
        let committed: Vec<Committed> = workload::committed(&self.business).await?;
        let fence = if self.watches_fence {
            fence::all(&self.business).await?
        } else {
            Vec::new()
        };
        let repeats = if self.only_takeovers_repeat {
            Some(fence::repeats(&self.business, &repeated(&arrivals)).await?)
        } else {
            None
        };
        let (excused, duplicates_allowed) = (self.excused.clone(), self.duplicates_allowed);
        Ok(Facts {
            committed,
            arrivals,
            effects,
            fence,
            excused,
            duplicates_allowed,
            repeats,
            unordered: self.unordered,
        })
    }
}

/// What arrived more than once.
fn repeated(arrivals: &[Arrival]) -> Vec<Uuid> {
    let (mut seen, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for id in arrivals.iter().filter_map(|arrival| arrival.id) {
        if !seen.insert(id) {
            repeated.insert(id);
        }
    }
    repeated.into_iter().collect()
}
