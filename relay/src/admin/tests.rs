use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::stream::Role;

struct Running {
    address: SocketAddr,
    stream: watch::Sender<StreamStatus>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(token: Option<&str>) -> Running {
    let (metrics, recorder) = Metrics::of_this_test();
    ::metrics::with_local_recorder(&recorder, || {
        ::metrics::counter!("onceward_published_total", "stream" => "events").increment(3);
        ::metrics::histogram!("onceward_publish_duration_seconds").record(0.002);
    });
    let server = AdminServer::bind(
        SocketAddr::from(([127, 0, 0, 1], 0)),
        token.map(SecretString::from),
    )
    .await
    .unwrap();
    let address = server.address().unwrap();
    let (stream, receiver) = watch::channel(StreamStatus {
        name: "events".to_owned(),
        ..StreamStatus::default()
    });
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(vec![receiver], metrics, stop.clone()));
    Running {
        address,
        stream,
        stop,
        task,
    }
}

async fn get(address: SocketAddr, path: &str, token: Option<&str>) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let token = token.map_or(String::new(), |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{token}\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_process_lives_whatever_its_streams_do() {
    let running = start(None).await;
    running
        .stream
        .send_modify(|s| s.role = Role::Failing("down".to_owned()));

    assert!(
        get(running.address, "/livez", None)
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn it_is_ready_once_it_publishes_or_stands_by() {
    let running = start(None).await;

    assert!(
        get(running.address, "/readyz", None)
            .await
            .starts_with("HTTP/1.1 503")
    );
    running.stream.send_modify(|s| s.role = Role::Standby);
    assert!(
        get(running.address, "/readyz", None)
            .await
            .starts_with("HTTP/1.1 200")
    );
    running
        .stream
        .send_modify(|s| s.role = Role::Failing("secret host".to_owned()));
    let answer = get(running.address, "/readyz", None).await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && !answer.contains("secret host"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_counted_is_shown_with_buckets() {
    let running = start(None).await;

    let answer = get(running.address, "/metrics", None).await;

    assert!(
        answer.contains("onceward_published_total{stream=\"events\"} 3"),
        "{answer}"
    );
    assert!(
        answer.contains("onceward_publish_duration_seconds_bucket{le=\"0.0025\"} 1"),
        "{answer}"
    );
}

#[tokio::test]
async fn with_a_token_numbers_need_it_and_probes_do_not() {
    let running = start(Some("long enough")).await;

    for path in ["/metrics", "/status"] {
        assert!(
            get(running.address, path, None)
                .await
                .starts_with("HTTP/1.1 401")
        );
        assert!(
            get(running.address, path, Some("wrong"))
                .await
                .starts_with("HTTP/1.1 401")
        );
        assert!(
            get(running.address, path, Some("long enough"))
                .await
                .starts_with("HTTP/1.1 200")
        );
    }
    assert!(
        get(running.address, "/livez", None)
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn a_connection_that_stays_open_does_not_hold_up_a_stop() {
    let running = start(None).await;
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        .await
        .unwrap();

    running.stop.cancel();

    timeout(Duration::from_secs(5), running.task)
        .await
        .unwrap()
        .unwrap();
}
