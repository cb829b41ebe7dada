//! One stream: stands by until it can claim the lease, then reads, publishes and stores until it ends.

mod advice;
mod advising;
mod clock;
mod detouring;
mod holder;
mod jobs;
mod keep;
mod keeping;
mod metrics;
mod publishing;
mod reading;
mod replaying;
mod reporting;
mod routing;
mod session;
mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward::{
    Claim, Claimed, Claiming, Keeper, LeaseToken, LogDatabase, LogError, LogReader, SharedReads,
};
use onceward_core::Backoff;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::destination::Destination;
use crate::faults::{Failpoint, pass};
use crate::plan::chain;
use crate::settings::StreamSettings;
use advice::Advice;
use holder::{End, Holder};
pub(crate) use status::StatusHandle;
pub use status::{Paused, Role, StreamStatus};

/// The longest wait between two attempts to claim a lease that another relay holds.
const CLAIM_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// How long to wait after a failure of the database.
const DATABASE_BACKOFF: Backoff = Backoff {
    base: Duration::from_millis(200),
    max: Duration::from_secs(10),
};

/// A stream that was held for longer is well, whatever it had to do.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// One stream of a relay.
pub(crate) struct Stream<D> {
    pub(crate) settings: Arc<StreamSettings>,
    pub(crate) database: LogDatabase,
    pub(crate) destination: Arc<D>,
    pub(crate) owner: String,
    pub(crate) status: StatusHandle,
    /// What the streams of this relay read.
    pub(crate) reads: SharedReads,
}

/// What is carried over from one time of holding to the next.
#[derive(Debug, Default)]
struct CarriedOver {
    /// A lease of our own need not be waited out.
    lease: Option<LeaseToken>,
    /// What was told of the destination's settings is not told again.
    advice: Advice,
    /// How often the database has failed since the stream was well.
    failures: u32,
}

impl<D: Destination> Stream<D> {
    /// Runs until stopped. A database that cannot be reached is waited for.
    ///
    /// # Errors
    /// [`LogError`] when the log must not be published as it is: see [`LogError::is_refusal`].
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), LogError> {
        let mut times = 1;
        let mut carried = CarriedOver::default();
        while !stop.is_cancelled() {
            let ended = self.turn(&mut carried, times, &stop).await;
            self.status.let_go();
            let error = match ended {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::Fenced) => {
                    warn!(stream = %self.settings.name, "lease lost; standing by");
                    continue;
                }
                Ok(End::Database(error)) | Err(error) => error,
            };
            if error.is_refusal() {
                return Err(error);
            }
            carried.failures = carried.failures.saturating_add(1);
            times = more_time(times, &error);
            self.failing(&error);
            let wait = DATABASE_BACKOFF.delay(carried.failures, fastrand::f64());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Stands by until the lease is ours, then holds it until it ends. Reads may take so many times as long as usual.
    async fn turn(
        &self,
        carried: &mut CarriedOver,
        times: u32,
        stop: &CancellationToken,
    ) -> Result<End, LogError> {
        let mut keeper = Keeper::connect(&self.database).await?;
        // Before the claim: a lease that waits for a connection runs out.
        let reader = LogReader::connect(&self.database.slower(times)).await?;
        keeper.check_reader(&reader)?;
        let Some(claimed) = self.claim(&mut keeper, carried.lease, stop).await? else {
            return Ok(End::Stopped);
        };
        carried.lease = keeper.token();
        pass(Failpoint::AfterClaim);
        info!(stream = %self.settings.name, owner = %self.owner, "lease claimed");
        self.status.update(|status| status.role = Role::Holder);
        let settings = Arc::clone(&self.settings);
        let destination = Arc::clone(&self.destination);
        let status = self.status.clone();
        let reader = (reader, self.reads.take_part());
        let advice = std::mem::take(&mut carried.advice);
        let holder = Holder::new(
            settings,
            destination,
            reader,
            keeper,
            claimed,
            status,
            advice,
        );
        let Some(holder) = holder else {
            return Ok(End::Fenced);
        };
        let began = Instant::now();
        let held = holder.run(stop).await;
        carried.advice = held.advice;
        carried.failures = failures_after(carried.failures, held.stored, began.elapsed());
        Ok(held.end)
    }

    /// Asks for the lease until it is ours; none if told to stop before.
    async fn claim(
        &self,
        keeper: &mut Keeper,
        previous: Option<LeaseToken>,
        stop: &CancellationToken,
    ) -> Result<Option<Claimed>, LogError> {
        let claim = Claim {
            stream: self.settings.name.clone(),
            owner: self.owner.clone(),
            ttl: self.settings.lease_ttl,
            topics: self.settings.topics.clone(),
            start: self.settings.start,
            unrouted: self.settings.unrouted,
            previous,
        };
        loop {
            let left = match keeper.claim(&claim).await? {
                Claiming::Claimed(claimed) => return Ok(Some(claimed)),
                Claiming::Taken { owner, expires_in } => {
                    debug!(stream = %self.settings.name, %owner, ?expires_in, "standing by");
                    expires_in
                }
            };
            self.status.update(|status| status.role = Role::Standby);
            tokio::select! {
                () = tokio::time::sleep(left.min(CLAIM_AT_LEAST_EVERY)) => {}
                () = stop.cancelled() => return Ok(None),
            }
        }
    }

    fn failing(&self, error: &LogError) {
        let text = chain(error);
        warn!(stream = %self.settings.name, error = %text, "database failed; will try again");
        self.status
            .update(|status| status.role = Role::Failing(text));
    }
}

/// How many failures count after a time of holding. To have claimed the lease is not enough to be well: what fails after it would be tried,
/// and all behind the cursor published, without a wait. Nor is a stored checkpoint alone, as one may be stored before each failure.
fn failures_after(failures: u32, stored: bool, held: Duration) -> u32 {
    if held >= WELL_AFTER {
        0
    } else if stored {
        failures.div_ceil(2)
    } else {
        failures
    }
}

/// How many times as long as usual the next reader's reads may take: more after one that took too long, or the same would happen again.
fn more_time(times: u32, ended: &LogError) -> u32 {
    match ended.is_slow_read() {
        true => times.saturating_mul(4),
        false => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_after_each_claim_is_tried_less_and_less_often_until_the_stream_is_held_for_a_while()
     {
        let short = Duration::from_secs(1);
        let after = |failures, stored| failures_after(failures, stored, short);

        assert_eq!(after(5, false), 5);
        assert_eq!(after(5, true), 3);
        assert_eq!(failures_after(5, false, WELL_AFTER), 0);
        // A checkpoint before each failure: it stays at two.
        let failures = (0..20).fold(0, |failures, _| after(failures, true) + 1);
        assert_eq!(failures, 2);
    }

    #[test]
    fn a_read_that_took_too_long_gets_more_time_until_the_database_fails_otherwise() {
        let slow = LogError::Timeout {
            doing: "reading the log",
            within: Duration::from_secs(1),
        };

        assert_eq!(more_time(1, &slow), 4);
        assert_eq!(more_time(4, &slow), 16);
        assert_eq!(more_time(u32::MAX, &slow), u32::MAX);
        assert_eq!(more_time(16, &LogError::Standby), 1);
    }
}
