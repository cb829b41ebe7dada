//! Runs the program `onceward` as a user would.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

/// A directory with or without a configuration, in which commands are run.
pub(crate) struct Shell {
    directory: TempDir,
    variables: Vec<(String, String)>,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Shell {
    /// A shell whose only setting is the database.
    pub(crate) fn with_database(url: &str) -> Self {
        Self::with_config("").variable("DATABASE_URL", url)
    }

    /// A shell with this file.
    pub(crate) fn with_config(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("onceward.toml"), text).unwrap();
        Self {
            directory,
            variables: Vec::new(),
        }
    }

    /// A shell without a file.
    pub(crate) fn without_config() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        }
    }

    /// Sets a variable.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command that is ready to run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_onceward"));
        command.args(arguments);
        command
    }

    /// Runs a command to its end with a terminal as its output, which shows both of its streams.
    pub(crate) async fn on_a_terminal(&self, arguments: &str) -> String {
        let mut command = self.program("script");
        command.env("PROGRAM", env!("CARGO_BIN_EXE_onceward"));
        let line = format!("\"$PROGRAM\" {arguments}");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("ONCEWARD")
                || text.starts_with("PG")
                || text == "DATABASE_URL"
                || text == "RUST_LOG"
            {
                command.env_remove(&name);
            }
        }
        command
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Answer {
        let output = self.command(arguments).output().await.unwrap();
        Answer {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let answer = self.run(arguments).await;
            assert_eq!(answer.code, 0, "{arguments:?} at {caller}: {answer:?}");
            answer.out
        }
    }

    /// Runs a command that must succeed, with its answer as JSON.
    pub(crate) async fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut with_json = arguments.to_vec();
        with_json.push("--json");
        let out = self.ok(&with_json).await;
        serde_json::from_str(&out).unwrap()
    }
}

impl Answer {
    /// That it failed with this code and said all of this.
    #[track_caller]
    pub(crate) fn assert_refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in {self:?}");
        }
        assert!(!self.err.contains("hunter2"), "{self:?}");
    }
}
