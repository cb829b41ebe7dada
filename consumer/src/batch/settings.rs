//! How large a batch may become.

use std::time::Duration;

/// How large a batch may become, and how long it may wait for that. Part of
/// [`HandlerSettings`](crate::HandlerSettings), for handlers of batches only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSettings {
    /// Messages of one batch, 1 to 10,000. Default 100.
    pub messages: usize,
    /// Bytes of one batch, about, at least 1; one larger message still passes, by itself. Default 1 MiB.
    pub bytes: usize,
    /// How long the first message of a batch waits for more, at most one minute. Default not at all: a batch is what is
    /// there. It holds its place among the handlers that run meanwhile.
    pub wait: Duration,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            messages: 100,
            bytes: 1024 * 1024,
            wait: Duration::ZERO,
        }
    }
}

impl BatchSettings {
    /// What is wrong with them, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if !(1..=10_000).contains(&self.messages) {
            Some("a batch must have 1 to 10,000 messages")
        } else if self.bytes == 0 {
            Some("the bytes of a batch must be at least 1")
        } else if self.wait > Duration::from_secs(60) {
            Some("a batch must wait at most one minute")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let default = BatchSettings::default;

        assert_eq!(default().fault(), None);
        for wrong in [
            BatchSettings {
                messages: 0,
                ..default()
            },
            BatchSettings {
                messages: 10_001,
                ..default()
            },
            BatchSettings {
                bytes: 0,
                ..default()
            },
            BatchSettings {
                wait: Duration::from_secs(61),
                ..default()
            },
        ] {
            assert!(wrong.fault().is_some(), "{wrong:?}");
        }
    }
}
