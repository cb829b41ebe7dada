//! The program `onceward` as it is released, with planted bugs and failpoints compiled in. For the end-to-end tests only.

use std::process::ExitCode;

fn main() -> ExitCode {
    // As the released program does: before anything opens a connection.
    drop(rustls::crypto::ring::default_provider().install_default());
    onceward_relay::run()
}
