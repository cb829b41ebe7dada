//! Onceward in one file: outbox, relay and consumer on a broker in memory.
