//! Shared servers in containers, where a Docker engine answers. Removed when this process is gone.
//!
//! Servers that a test kills are always processes of our own: what a signal does to them is the point of such a test.

use std::pin::Pin;
use std::time::Duration;

use testcontainers_modules::kafka::apache;
use testcontainers_modules::nats::{Nats, NatsServerCmd};
use testcontainers_modules::postgres::Postgres;
use testcontainers_modules::testcontainers::runners::AsyncRunner as _;
use testcontainers_modules::testcontainers::{
    ContainerAsync, Image, ImageExt as _, TestcontainersError,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::scratch;

const ENGINE_ANSWERS_WITHIN: Duration = Duration::from_secs(3);

const POSTGRES_TAG: &str = "15-alpine";
const NATS_TAG: &str = "2.15.1";
const KAFKA_TAG: &str = "4.1.1";

const POSTGRES_PORT: u16 = 5432;
const NATS_PORT: u16 = 4222;
const KAFKA_PORT: u16 = 9092;

/// Not a future of a type of its own: each program of tests would compile the engine's whole client anew.
type Address = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// A failed start is said and is no end: the programs on this machine come next.
pub(crate) fn postgres() -> Address {
    Box::pin(start_postgres())
}

pub(crate) fn nats() -> Address {
    Box::pin(start_nats())
}

pub(crate) fn kafka() -> Address {
    Box::pin(start_kafka())
}

async fn start_postgres() -> Option<String> {
    if !engine_answers().await {
        return None;
    }
    let command = [
        "postgres",
        "-c",
        "fsync=off",
        "-c",
        "full_page_writes=off",
        "-c",
        "wal_level=logical",
    ];
    let command = command.into_iter().chain([
        "-c",
        "max_connections=300",
        "-c",
        "max_prepared_transactions=20",
    ]);
    let image = Postgres::default()
        .with_host_auth()
        .with_tag(POSTGRES_TAG)
        .with_cmd(command);
    let address = address("PostgreSQL", image.start().await, POSTGRES_PORT).await?;
    Some(format!("postgres://postgres@{address}/postgres"))
}

async fn start_nats() -> Option<String> {
    if !engine_answers().await {
        return None;
    }
    let command = NatsServerCmd::default().with_jetstream();
    let image = Nats::default().with_cmd(&command).with_tag(NATS_TAG);
    let address = address("NATS", image.start().await, NATS_PORT).await?;
    Some(format!("nats://{address}"))
}

async fn start_kafka() -> Option<String> {
    if !engine_answers().await {
        return None;
    }
    let image = apache::Kafka::default()
        .with_jvm_image()
        .with_tag(KAFKA_TAG);
    address("Kafka", image.start().await, KAFKA_PORT).await
}

/// Where a container is reached; from here on it lives as long as this process.
async fn address<I: Image>(
    name: &str,
    started: Result<ContainerAsync<I>, TestcontainersError>,
    port: u16,
) -> Option<String> {
    let reached = match started {
        Ok(container) => {
            scratch::at_end("docker rm --force --volumes \"$1\"", container.id());
            let reached = container.get_host().await;
            let port = container.get_host_port_ipv4(port).await;
            // Dropping it would remove it from within a runtime that may be gone by then.
            std::mem::forget(container);
            reached.and_then(|host| Ok(format!("{host}:{}", port?)))
        }
        Err(error) => Err(error),
    };
    reached
        .inspect_err(|error| eprintln!("{name} cannot be had in a container: {error}"))
        .ok()
}

/// Whether a Docker engine answers where `DOCKER_HOST` says, or in the usual place.
async fn engine_answers() -> bool {
    let host =
        std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let asked = async {
        if let Some(path) = host.strip_prefix("unix://") {
            ping(UnixStream::connect(path).await?).await
        } else {
            let address = host.strip_prefix("tcp://").unwrap_or(&host);
            ping(TcpStream::connect(address).await?).await
        }
    };
    matches!(
        tokio::time::timeout(ENGINE_ANSWERS_WITHIN, asked).await,
        Ok(Ok(true))
    )
}

async fn ping(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<bool> {
    stream
        .write_all(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer.windows(4).take(16).any(|window| window == b" 200"))
}
