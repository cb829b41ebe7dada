//! The program `onceward`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything opens a connection: two providers may be compiled in, and then neither is the default.
    // It fails only if there is a default already.
    drop(rustls::crypto::ring::default_provider().install_default());
    onceward_relay::run()
}
