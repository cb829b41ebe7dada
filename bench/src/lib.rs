//! The benchmarks of Onceward.
