//! The commands of `onceward`.

mod bulk;
mod changes;
mod database;
mod dead_letters;
mod doctor;
mod failure;
mod known;
mod logs;
mod migrate;
mod output;
mod overview;
mod parked;
mod relay;
mod rights;
mod signals;
mod status;
mod stream;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use failure::Failure;
use output::Output;

/// A transactional outbox that is published in order, and consumers whose effects happen once.
///
/// `onceward relay` runs beside a service and publishes what the service has committed. The other commands show and
/// change how that stands.
#[derive(Debug, Parser)]
#[command(
    name = "onceward",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
#[command(
    after_help = "Settings come from onceward.toml and from variables such as ONCEWARD__DATABASE__URL.
Exit codes: 0 done, also where nothing was to be done; 1 failed, found a problem, or what was named is not there;
2 wrong usage or configuration.
Pages that are named as docs/… are at https://github.com/onceward/onceward."
)]
struct Cli {
    /// The configuration file [default: onceward.toml, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "ONCEWARD_CONFIG")]
    config: Option<PathBuf>,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Migrate(migrate::Migrate),
    Relay(relay::RelayCommand),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Parked(parked::Parked),
    DeadLetters(dead_letters::DeadLetters),
    Stream(stream::Stream),
}

/// What every command is given.
#[derive(Debug)]
struct Context {
    config: Config,
    output: Output,
}

/// Runs the command line of this process to its end, and tells with which code to leave.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    match run_command(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if output.is_json() {
                eprintln!("{}", failure.json());
            } else {
                eprintln!("{failure}");
            }
            failure.code()
        }
    }
}

fn run_command(cli: Cli, output: Output) -> Result<(), Failure> {
    let config = Config::load(cli.config.as_deref())?;
    if matches!(cli.command, Command::Relay(_)) {
        logs::start(&config.log);
    } else {
        logs::start_quietly(config.log.format);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::failed("the program's threads cannot be started").because(error)
        })?;
    let context = Context { config, output };
    let role = cli.command.role();
    let done = runtime.block_on(async {
        match cli.command {
            Command::Migrate(migrate) => migrate.run(&context).await,
            Command::Relay(relay) => relay.run(&context).await,
            Command::Status(status) => status.run(&context).await,
            Command::Doctor(doctor) => doctor.run(&context).await,
            Command::Parked(parked) => parked.run(&context).await,
            Command::DeadLetters(dead_letters) => dead_letters.run(&context).await,
            Command::Stream(stream) => stream.run(&context).await,
        }
    });
    done.map_err(|failure| rights::explain(failure, role, &context.config.database))
}

/// Tells a person who waits what is being done; nothing for programs.
fn progress(context: &Context, what: &str) {
    if !context.output.is_json() && std::io::stderr().is_terminal() {
        eprintln!("{what} …");
    }
}

/// Who decides, for the message's history: the person, else the database's user.
fn who(context: &Context) -> String {
    let variables = ["USER", "LOGNAME"].into_iter();
    let mut named = variables.filter_map(|name| std::env::var(name).ok());
    let person = named.find(|name| !name.is_empty());
    person
        .or_else(|| {
            let user = database::user(&context.config.database)?;
            Some(format!("database user {user}"))
        })
        .unwrap_or_else(|| "unknown".to_owned())
}
