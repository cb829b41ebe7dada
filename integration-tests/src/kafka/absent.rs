//! Makes a broker known to a cluster that never comes: one request of Kafka's protocol to the controller.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const TAKES_AT_MOST: Duration = Duration::from_secs(30);

/// `BrokerRegistration`, and the version of it that is spoken here.
const REGISTRATION: [i16; 2] = [62, 4];
const PLAINTEXT: i16 = 0;
/// What a broker must say that it knows, at whatever level the cluster has it.
const FEATURES: [&str; 7] = [
    "metadata.version",
    "kraft.version",
    "transaction.version",
    "group.version",
    "eligible.leader.replicas.version",
    "share.version",
    "streams.version",
];

/// Registers broker `id` with the controller on that port.
pub(super) async fn register(controller: u16, cluster: &str, id: i32) {
    let registered = timeout(TAKES_AT_MOST, ask(controller, cluster, id)).await;
    let error = registered.expect("the controller answers in time");
    assert_eq!(error, 0, "the controller refuses broker {id}");
}

/// The code of the controller's answer.
async fn ask(controller: u16, cluster: &str, id: i32) -> i16 {
    let request = request(cluster, id);
    let mut connection = TcpStream::connect(("127.0.0.1", controller))
        .await
        .expect("the controller listens");
    let size = i32::try_from(request.len()).expect("a request is small");
    let sent = [&size.to_be_bytes()[..], &request].concat();
    connection
        .write_all(&sent)
        .await
        .expect("it takes requests");
    // Size, number of the request, tags, throttling, and then the error.
    let mut answer = [0; 15];
    let read = connection.read_exact(&mut answer).await;
    read.expect("the controller answers");
    i16::from_be_bytes([answer[13], answer[14]])
}

fn request(cluster: &str, id: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(REGISTRATION.map(i16::to_be_bytes).as_flattened());
    bytes.extend(1_i32.to_be_bytes());
    // No name of the client, no tags.
    bytes.extend([0xff, 0xff, 0]);
    bytes.extend(id.to_be_bytes());
    text(&mut bytes, cluster);
    bytes.extend(fastrand::u128(..).to_be_bytes());
    count(&mut bytes, 1);
    text(&mut bytes, "PLAINTEXT");
    text(&mut bytes, "127.0.0.1");
    bytes.extend(1_u16.to_be_bytes());
    bytes.extend(PLAINTEXT.to_be_bytes());
    bytes.push(0);
    count(&mut bytes, FEATURES.len());
    for feature in FEATURES {
        text(&mut bytes, feature);
        bytes.extend([0_i16, i16::MAX].map(i16::to_be_bytes).as_flattened());
        bytes.push(0);
    }
    // No rack, and no other cluster that it comes from.
    bytes.extend([0, 0]);
    count(&mut bytes, 1);
    bytes.extend(fastrand::u128(..).to_be_bytes());
    bytes.extend((-1_i64).to_be_bytes());
    bytes.push(0);
    bytes
}

/// Lengths are told as one more than they are; ours fit into seven bits.
fn count(bytes: &mut Vec<u8>, count: usize) {
    let count = u8::try_from(count + 1).expect("what is told is short");
    assert!(count < 0x80, "what is told is short");
    bytes.push(count);
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    count(bytes, text.len());
    bytes.extend(text.as_bytes());
}
