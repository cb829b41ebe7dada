use std::net::TcpStream;

use super::*;
use crate::nats::{Nats, Options};
use crate::postgres::Postgres;
use crate::postgres::tests::{segment, segments};

const ALONE: Duration = Duration::from_secs(20);

fn sleeper() -> Child {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "echo ready; trap 'echo bye; exit 3' TERM; while :; do sleep 0.01; done",
    ]);
    Child::spawn("sleeper", &command)
}

async fn is_ready(child: &Child) {
    wait::until_true(ALONE, "the child to be ready", || async {
        child.stdout() == "ready\n"
    })
    .await;
}

#[tokio::test]
async fn a_child_is_asked_to_end_and_what_it_says_is_kept() {
    let child = sleeper();
    is_ready(&child).await;

    child.term();

    assert_eq!(child.wait(ALONE).await.code(), Some(3));
    assert_eq!(child.stdout(), "ready\nbye\n");
}

#[tokio::test]
async fn a_frozen_child_hears_nothing_until_it_goes_on() {
    let child = sleeper();
    is_ready(&child).await;

    child.stop();
    child.term();
    assert_eq!(child.try_wait(), None);
    child.cont();

    assert_eq!(child.wait(ALONE).await.code(), Some(3));
}

/// Plays the process that is killed in the test below, when that starts it.
#[tokio::test]
async fn a_process_that_holds_a_server() {
    let Some(file) = std::env::var_os("TESTKIT_HOLDS_A_SERVER") else {
        return;
    };

    let nats = Nats::start(Options::default()).await;
    let postgres = Postgres::start(crate::postgres::Options::default()).await;
    let segment = segment(&postgres);
    let scratch = Scratch::new("held");
    let found = format!("{} {segment} {}", nats.port(), scratch.path().display());
    std::fs::write(PathBuf::from(&file).with_extension("new"), found).unwrap();
    std::fs::rename(PathBuf::from(&file).with_extension("new"), file).unwrap();

    std::future::pending().await
}

#[tokio::test]
async fn no_server_and_no_file_outlives_a_killed_test_process() {
    let scratch = Scratch::new("outlives");
    let file = scratch.path().join("found");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "process::tests::a_process_that_holds_a_server",
        "--nocapture",
    ]);
    command.env("TESTKIT_HOLDS_A_SERVER", &file);
    let other = Child::spawn("other", &command);
    let starts = Duration::from_secs(120);
    let found = wait::until(starts, "the other process to hold its servers", || async {
        std::fs::read_to_string(&file).ok()
    })
    .await;
    let mut found = found.splitn(3, ' ');
    let port: u16 = found.next().unwrap().parse().unwrap();
    let segment = found.next().unwrap().to_owned();
    let path = found.next().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(segments().contains(&segment));

    other.kill();

    wait::until_true(ALONE, "its server to end and its files to go", || async {
        TcpStream::connect(("127.0.0.1", port)).is_err()
            && !Path::new(path).exists()
            && !segments().contains(&segment)
    })
    .await;
}
