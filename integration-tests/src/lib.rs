//! Real servers for tests: PostgreSQL, NATS, Kafka and SQS (ElasticMQ) on free loopback ports, started, killed and started again.
//!
//! ```no_run
//! # async fn test() {
//! use onceward_testkit::{nats::Nats, postgres::Postgres};
//!
//! let database = Postgres::shared().await.database().await; // a fresh one for this test
//! let nats = Nats::shared().await;
//! let orders = onceward_testkit::unique("orders"); // brokers are shared: names must differ
//! # }
//! ```
//!
//! Where a server comes from, in this order: a URL in the environment (`ONCEWARD_TEST_POSTGRES_URL`,
//! `ONCEWARD_TEST_NATS_URL`, `ONCEWARD_TEST_KAFKA_BROKERS`, `ONCEWARD_TEST_SQS_URL`), else, with the feature `containers`
//! and except for SQS, a container where a Docker engine answers, else the programs that `scripts/install-servers.sh` puts on the machine. Servers of a
//! test's own, which it kills, are always such programs. A server that cannot be had fails the test; nothing is skipped.
//!
//! No server outlives the process that started it, however that ends, and what it wrote is removed. To look at
//! logs and data afterwards, set `ONCEWARD_TESTKIT_KEEP=1`; `ONCEWARD_TESTKIT_DIR` says where they lie.
//! Programs of tests that run side by side take different ports if `ONCEWARD_TEST_SLOT` gives each a number of its own, 0 to 7.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a testkit fails the test that uses it, with a sentence that says what is missing"
)]

mod binaries;
#[cfg(feature = "containers")]
mod containers;
pub mod cpu;
mod elsewhere;
pub mod kafka;
pub mod ledger;
mod log;
mod names;
pub mod nats;
mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
mod scratch;
mod spawner;
pub mod sqs;
pub mod wait;

pub use log::Log;
pub use names::unique;
pub use ports::free_port;
pub use scratch::Scratch;
