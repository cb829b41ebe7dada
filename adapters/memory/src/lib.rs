//! Onceward on a broker in memory, for tests and examples.
