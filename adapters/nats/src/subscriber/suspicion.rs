//! Whether connections break because of what is read. Pure.
//!
//! async-nats closes its connection when it meets headers that it cannot read, without saying so, and would do that again with
//! each new one: nothing behind such a message would ever be delivered.

/// Connections that were lost in a row without anything being acked in between.
#[derive(Debug, Default)]
pub(crate) struct Suspicion {
    fruitless: u32,
    settled: Option<u64>,
}

impl Suspicion {
    /// The durable is ours, with everything up to `settled` acked.
    pub(crate) fn claimed(&mut self, settled: u64) {
        if self.settled != Some(settled) {
            self.fruitless = 0;
        }
        self.settled = Some(settled);
    }

    /// The connection is lost.
    pub(crate) fn disconnected(&mut self) {
        self.fruitless += 1;
    }

    /// What comes next was looked at, and nothing of it breaks a connection.
    pub(crate) fn refuted(&mut self) {
        self.fruitless = 0;
    }

    /// Whether it is time to look at what comes next. In an ordinary outage that costs some requests, once, and finds nothing.
    pub(crate) fn is_strong(&self) -> bool {
        self.fruitless >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_connections_lost_at_the_same_place_are_suspicious() {
        let mut suspicion = Suspicion::default();

        suspicion.claimed(7);
        suspicion.disconnected();
        assert!(!suspicion.is_strong());
        suspicion.claimed(7);
        suspicion.disconnected();

        assert!(suspicion.is_strong());
    }

    #[test]
    fn a_suspicion_that_was_refuted_needs_as_many_lost_connections_again() {
        let mut suspicion = Suspicion::default();
        suspicion.claimed(7);
        suspicion.disconnected();
        suspicion.disconnected();

        suspicion.refuted();
        assert!(!suspicion.is_strong());
        suspicion.claimed(7);
        suspicion.disconnected();
        assert!(!suspicion.is_strong());
        suspicion.disconnected();

        assert!(suspicion.is_strong());
    }

    #[test]
    fn progress_clears_the_suspicion() {
        let mut suspicion = Suspicion::default();
        suspicion.claimed(7);
        suspicion.disconnected();

        suspicion.claimed(8);
        suspicion.disconnected();

        assert!(!suspicion.is_strong());
    }
}
