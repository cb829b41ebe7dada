//! An idempotent consumer: a handler whose effects happen once.
