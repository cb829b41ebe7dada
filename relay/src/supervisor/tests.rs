use onceward::Schema;
use onceward_core::Source;
use onceward_testkit::Log;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn settings(name: &str) -> StreamSettings {
    StreamSettings::new(name, Source::try_from("/test").unwrap())
}

/// How a relay ends that has these streams, each of which does what it is told here. Its database is not asked.
async fn ended<const N: usize>(streams: [(StreamSettings, Start); N]) -> Result<(), RelayError> {
    let options = "postgres://127.0.0.1:9/none".parse().unwrap();
    let mut relay = Relay::new(LogDatabase::new(options, Schema::default()));
    let streams = streams.into_iter();
    relay.streams = streams
        .map(|(settings, start)| (Arc::new(settings), start))
        .collect();
    let running = relay.run(CancellationToken::new());
    timeout(SOON, running).await.unwrap()
}

fn refuses_at_once() -> Start {
    Box::new(|_| Box::pin(async { Err(LogError::Standby) }))
}

fn refuses_when_stopped() -> Start {
    Box::new(|stop| {
        Box::pin(async move {
            stop.cancelled().await;
            Err(LogError::Standby)
        })
    })
}

fn never_starts() -> Start {
    Box::new(|_| unreachable!("nothing is started"))
}

#[tokio::test]
async fn the_first_refusal_is_given_and_each_is_logged() {
    let log = Log::of_this_thread();

    let ended = ended([
        (settings("later"), refuses_when_stopped()),
        (settings("first"), refuses_at_once()),
    ]);
    let error = ended.await.unwrap_err();

    assert!(
        matches!(&error, RelayError::Refused { stream, .. } if stream == "first"),
        "{error:?}"
    );
    for stream in ["first", "later"] {
        assert_eq!(log.lines_with(stream).len(), 1, "{stream}");
    }
}

#[tokio::test]
async fn a_stream_that_panics_is_named_and_stops_the_others() {
    let stopped = CancellationToken::new();
    let of_stream = stopped.clone();
    let waits: Start = Box::new(move |stop| {
        Box::pin(async move {
            stop.cancelled().await;
            of_stream.cancel();
            Ok(())
        })
    });
    let panics: Start = Box::new(|_| Box::pin(async { panic!("a bug") }));

    let ended = ended([(settings("waits"), waits), (settings("panics"), panics)]);
    let error = ended.await.unwrap_err();

    assert!(
        matches!(&error, RelayError::Ended { part, .. } if part == "stream \"panics\""),
        "{error:?}"
    );
    assert!(stopped.is_cancelled());
}

#[tokio::test]
async fn nothing_is_started_if_a_stream_would_stand_still() {
    let still = StreamSettings {
        in_flight_messages: 0,
        ..settings("still")
    };

    let ended = ended([(settings("good"), never_starts()), (still, never_starts())]);
    let error = ended.await.unwrap_err();

    assert!(
        matches!(&error, RelayError::Settings { stream, .. } if stream == "still"),
        "{error:?}"
    );
}

#[tokio::test]
async fn nothing_is_started_if_two_streams_have_one_name() {
    let ended = ended([
        (settings("events"), never_starts()),
        (settings("events"), never_starts()),
    ]);
    let error = ended.await.unwrap_err();

    assert!(
        matches!(&error, RelayError::SameName { stream } if stream == "events"),
        "{error:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_slots_that_are_being_emptied() {
    let (begun, stop) = (Notify::new(), CancellationToken::new());
    let empty = || async {
        begun.notify_one();
        std::future::pending().await
    };
    let stopping = async {
        begun.notified().await;
        stop.cancel();
    };

    let both = async { tokio::join!(sweep(empty, stop.clone()), stopping) };

    timeout(EMPTY_EVERY + SOON, both).await.unwrap();
}
