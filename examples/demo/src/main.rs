//! The demo: an order service, two relays and two billing consumers under load, with kills; then the ledger.
//!
//! Everything that it starts ends with it, also when it is killed.

mod board;
mod books;
mod counters;
mod crew;
mod http;
mod load;
mod outcome;
mod plot;
mod screen;
mod servers;
mod settings;
mod show;
mod stage;
mod waiting;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use screen::Screen;
use settings::Settings;

/// What goes wrong outside the promise: a server that does not start, a program that is not there.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    let mut screen = Screen::new(settings.json);
    tokio::select! {
        code = demo(&settings, &mut screen) => code,
        // Dropping the run ends all that it has started.
        () = interrupted() => {
            eprintln!("\nstopped; everything that was started is ended");
            INTERRUPTED.into()
        }
    }
}

async fn demo(settings: &Settings, screen: &mut Screen) -> ExitCode {
    match Box::pin(show::run(settings, screen)).await {
        Ok(outcome) => {
            screen.say(&format!("\n{outcome}"));
            if settings.json {
                match serde_json::to_string_pretty(&outcome) {
                    Ok(json) => println!("{json}"),
                    Err(error) => eprintln!("the verdict cannot be written as JSON: {error}"),
                }
            }
            if outcome.kept {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("\nthe demo failed: {error}");
            eprintln!(
                "what the programs printed lies in {}",
                settings.dir.join("logs").display()
            );
            ExitCode::FAILURE
        }
    }
}

/// Ctrl-C, or a request to end.
async fn interrupted() {
    let (Ok(mut int), Ok(mut term), Ok(mut hup)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
        _ = hup.recv() => {}
    }
}
