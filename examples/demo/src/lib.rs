//! The demo: an order service, two relays and two consumers under load, with kills.
