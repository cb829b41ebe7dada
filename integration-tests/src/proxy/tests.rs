use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::wait;

/// A server that answers with what it gets, and counts that.
async fn echo() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&heard);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut byte = [0];
                while client.read_exact(&mut byte).await.is_ok() {
                    counter.fetch_add(1, Ordering::SeqCst);
                    client.write_all(&byte).await.unwrap();
                }
            });
        }
    });
    (port, heard)
}

async fn answer(client: &mut TcpStream) -> u8 {
    tokio::time::timeout(Duration::from_secs(30), client.read_u8())
        .await
        .expect("an answer")
        .unwrap()
}

async fn connected(proxy: &Proxy) -> TcpStream {
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    client.write_all(b"a").await.unwrap();
    assert_eq!(answer(&mut client).await, b'a');
    client
}

#[tokio::test]
async fn a_cut_drops_connections_and_refuses_new_ones_until_it_is_healed() {
    let mut proxy = Proxy::to(echo().await.0).await;
    let mut client = connected(&proxy).await;

    proxy.cut().await;

    assert!(!matches!(client.read(&mut [0]).await, Ok(1..)));
    assert!(TcpStream::connect(proxy.addr()).await.is_err());
    proxy.heal().await;
    connected(&proxy).await;
}

#[tokio::test]
async fn a_stalled_connection_hangs_and_then_goes_on() {
    let (port, heard) = echo().await;
    let mut proxy = Proxy::to(port).await;
    let mut client = connected(&proxy).await;

    proxy.stall();
    client.write_all(b"b").await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(300), client.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    proxy.heal().await;

    assert_eq!(answer(&mut client).await, b'b');
}

#[tokio::test]
async fn swallowed_answers_are_lost_while_requests_arrive() {
    let (port, heard) = echo().await;
    let mut proxy = Proxy::to(port).await;
    let mut client = connected(&proxy).await;

    proxy.swallow_answers();
    client.write_all(b"b").await.unwrap();
    wait::until_true(Duration::from_secs(30), "an answer to vanish", || async {
        proxy.swallowed() == 1
    })
    .await;
    proxy.heal().await;

    assert_eq!(heard.load(Ordering::SeqCst), 2);
    client.write_all(b"c").await.unwrap();
    assert!(
        !matches!(client.read(&mut [0]).await, Ok(1..)),
        "an answer came after a lost one"
    );
}

#[tokio::test]
async fn a_delay_holds_back_both_directions() {
    let proxy = Proxy::to(echo().await.0).await;
    let mut client = connected(&proxy).await;

    proxy.delay(Duration::from_millis(40));
    let begin = std::time::Instant::now();
    client.write_all(b"b").await.unwrap();

    assert_eq!(answer(&mut client).await, b'b');
    assert!(
        begin.elapsed() >= Duration::from_millis(80),
        "{:?}",
        begin.elapsed()
    );
}
