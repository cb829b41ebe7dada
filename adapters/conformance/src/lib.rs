//! The suite that every Onceward adapter passes.
