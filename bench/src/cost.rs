//! How fast something was done, and the CPU that it took of each process that took part.

use std::time::{Duration, Instant};

use onceward_testkit::cpu;

use crate::outcome::Outcome;

/// A figure: its metric, its unit and its value.
pub(crate) type Figure = (&'static str, &'static str, f64);

/// CPU of each process: seconds so far, or microseconds of each message.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    /// Of this process: the bare clients, or whoever writes, reads or consumes.
    pub(crate) here: f64,
    pub(crate) postgres: f64,
    /// Zero where there is no broker.
    pub(crate) broker: f64,
}

impl Used {
    /// What each of so many took, in microseconds, since an earlier look.
    pub(crate) fn each_since(self, before: Self, count: u64) -> Self {
        let each = |after: f64, before: f64| each(after - before, count);
        Self {
            here: each(self.here, before.here),
            postgres: each(self.postgres, before.postgres),
            broker: each(self.broker, before.broker),
        }
    }
}

/// Looks at the processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meter {
    postgres: u32,
    broker: Option<u32>,
}

impl Meter {
    /// By the process ids of the servers.
    pub(crate) const fn of(postgres: u32, broker: Option<u32>) -> Self {
        Self { postgres, broker }
    }

    /// What all have used so far, in seconds.
    pub(crate) fn used(self) -> Outcome<Used> {
        let broker = self.broker.map(cpu::of_process).transpose()?;
        Ok(Used {
            here: cpu::of_this()?.as_secs_f64(),
            postgres: cpu::of_family(self.postgres)?.as_secs_f64(),
            broker: broker.unwrap_or_default().as_secs_f64(),
        })
    }

    /// From now on.
    pub(crate) fn start(self) -> Outcome<Clock> {
        Ok(Clock {
            meter: self,
            before: self.used()?,
            begun: Instant::now(),
        })
    }
}

/// A run that has begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    meter: Meter,
    before: Used,
    begun: Instant,
}

impl Clock {
    /// What so many came to that were done since.
    pub(crate) fn stop(self, count: u64) -> Outcome<Stage> {
        let took = self.begun.elapsed();
        Ok(Stage {
            rate: per_second(count, took),
            used: self.meter.used()?.each_since(self.before, count),
        })
    }
}

/// Something that was done with messages, as fast as it goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage {
    /// Messages a second.
    pub(crate) rate: f64,
    /// CPU microseconds of each.
    pub(crate) used: Used,
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64()
}

/// Microseconds of each.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn each(seconds: f64, count: u64) -> f64 {
    seconds * 1e6 / count as f64
}

/// Bytes of each.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(crate) fn bytes_each(bytes: i64, count: u64) -> f64 {
    bytes as f64 / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_before_does_not_count() {
        let before = Used {
            here: 1.0,
            postgres: 2.0,
            broker: 3.0,
        };
        let after = Used {
            here: 1.5,
            postgres: 2.0,
            broker: 5.0,
        };

        let each = after.each_since(before, 1_000_000);

        assert_eq!((each.here, each.postgres, each.broker), (0.5, 0.0, 2.0));
    }
}
