//! The program `onceward`.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before anything opens a connection: two providers may be compiled in, and then neither is the default.
    // It fails only if there is a default already.
    drop(rustls::crypto::ring::default_provider().install_default());
    onceward_relay::run()
}
