//! What is done to the processes, and when. Pure.

use std::collections::VecDeque;
use std::time::Duration;

/// Something that happens on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// SIGKILL to the relay that holds the lease.
    KillRelay,
    /// It comes back, and stands by.
    RestartRelay,
    /// SIGKILL to a consumer at work.
    KillConsumer,
    /// It comes back.
    RestartConsumer,
}

impl Step {
    /// What is said when nobody was there to whom it could be done.
    pub(crate) const fn left_out(self) -> &'static str {
        match self {
            Self::KillRelay => "no relay was killed: none was at work",
            Self::RestartRelay => "no relay was started again: none had been killed",
            Self::KillConsumer => "no consumer was killed: none was at work",
            Self::RestartConsumer => "no consumer was started again: none had been killed",
        }
    }
}

/// The steps that are still to come.
#[derive(Debug)]
pub(crate) struct Plot {
    steps: VecDeque<(Duration, Step)>,
}

impl Plot {
    /// Kills in the middle of the load, restarts before its end.
    pub(crate) fn over(load: Duration) -> Self {
        let at = |percent: u32| load * percent / 100;
        Self {
            steps: VecDeque::from([
                (at(25), Step::KillRelay),
                (at(45), Step::RestartRelay),
                (at(55), Step::KillConsumer),
                (at(75), Step::RestartConsumer),
            ]),
        }
    }

    /// The next step whose time has come.
    pub(crate) fn due(&mut self, elapsed: Duration) -> Option<Step> {
        let (at, step) = *self.steps.front()?;
        if elapsed < at {
            return None;
        }
        self.steps.pop_front();
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_comes_once_and_in_time() {
        let mut plot = Plot::over(Duration::from_secs(40));

        assert_eq!(plot.due(Duration::from_secs(9)), None);
        assert_eq!(plot.due(Duration::from_secs(10)), Some(Step::KillRelay));
        assert_eq!(plot.due(Duration::from_secs(10)), None);
        let late = Duration::from_secs(60);
        let rest: Vec<Step> = std::iter::from_fn(|| plot.due(late)).collect();
        assert_eq!(
            rest,
            [
                Step::RestartRelay,
                Step::KillConsumer,
                Step::RestartConsumer
            ]
        );
    }
}
