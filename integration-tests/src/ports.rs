//! Free ports that stay free: chosen below the range from which the system picks ports for outgoing connections,
//! so that a server that was killed finds its port again.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;

const FIRST: u16 = 10_000;
const LAST: u16 = 32_000;

/// So many programs of tests can run side by side.
const SLOTS: u16 = 8;

// The ports of servers that may be down for a moment must not be handed out twice.
static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of 127.0.0.1 on which nobody listens now, and which this process has not handed out before. Processes that run side by side
/// hand out different ones if `ONCEWARD_TEST_SLOT` gives each of them another number, 0 to 7.
///
/// # Panics
/// When no free port is found in a thousand tries, and for a slot that there is not.
#[must_use]
pub fn free_port() -> u16 {
    let slot = slot();
    let mut handed_out = HANDED_OUT
        .lock()
        .expect("no thread panics while it holds the ports");
    for _ in 0..1_000 {
        let any = fastrand::u16(FIRST..LAST);
        let port = slot.map_or(any, |slot| any - any % SLOTS + slot);
        if !handed_out.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            handed_out.insert(port);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {LAST} on 127.0.0.1")
}

fn slot() -> Option<u16> {
    let told = std::env::var("ONCEWARD_TEST_SLOT").ok()?;
    let slot = told.parse().ok().filter(|slot| *slot < SLOTS);
    Some(slot.unwrap_or_else(|| {
        panic!(
            "ONCEWARD_TEST_SLOT is {told:?}; 0 to {} are allowed",
            SLOTS - 1
        )
    }))
}
