//! One connection through the proxy: two directions, each a reader and a writer with what is under way in between.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::{Mode, Setting};

const CHUNK: usize = 64 * 1024;
const CHUNKS_UNDER_WAY: usize = 256;

/// The runtime's timers count in whole milliseconds, and may be late by this much.
const TIMERS_LATE_BY: Duration = Duration::from_millis(2);

/// What all connections of a proxy share.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) target: u16,
    pub(super) setting: watch::Receiver<Setting>,
    pub(super) swallowed: Arc<AtomicU64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

struct Chunk {
    arrived: Instant,
    bytes: Vec<u8>,
}

/// Forwards between `client` and the server until one of them ends it. Errors end it too: that is what they look
/// like from outside.
pub(super) async fn run(client: TcpStream, mut wire: Wire) {
    if wire
        .setting
        .wait_for(|setting| setting.mode != Mode::Stall)
        .await
        .is_err()
    {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, wire.target)).await else {
        return;
    };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = forward(from_client, to_server, Direction::Request, wire.clone()) => {}
        _ = forward(from_server, to_client, Direction::Answer, wire) => {}
    }
}

async fn forward(
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    direction: Direction,
    wire: Wire,
) -> io::Result<()> {
    let (chunks, under_way) = mpsc::channel(CHUNKS_UNDER_WAY);
    tokio::try_join!(read(from, chunks), write(to, under_way, direction, wire))?;
    Ok(())
}

async fn read(mut from: OwnedReadHalf, chunks: mpsc::Sender<Chunk>) -> io::Result<()> {
    loop {
        let mut bytes = Vec::with_capacity(CHUNK);
        let read = from.read_buf(&mut bytes).await?;
        if read == 0
            || chunks
                .send(Chunk {
                    arrived: Instant::now(),
                    bytes,
                })
                .await
                .is_err()
        {
            return Ok(());
        }
    }
}

async fn write(
    mut to: OwnedWriteHalf,
    mut under_way: mpsc::Receiver<Chunk>,
    direction: Direction,
    mut wire: Wire,
) -> io::Result<()> {
    let mut lost_some = false;
    while let Some(chunk) = under_way.recv().await {
        let Ok(setting) = wire
            .setting
            .wait_for(|setting| setting.mode != Mode::Stall)
            .await
            .map(|setting| *setting)
        else {
            return Ok(());
        };
        wait_until(chunk.arrived + setting.delay).await;
        // Asked again: this is the moment at which the bytes leave.
        let mode = wire.setting.borrow().mode;
        if direction == Direction::Answer && mode == Mode::SwallowAnswers {
            lost_some = true;
            let bytes = u64::try_from(chunk.bytes.len()).unwrap_or(u64::MAX);
            wire.swallowed.fetch_add(bytes, Ordering::SeqCst);
        } else if lost_some {
            // What follows lost bytes makes no sense to the client.
            return Ok(());
        } else {
            to.write_all(&chunk.bytes).await?;
        }
    }
    to.shutdown().await
}

/// Waits as exactly as a thread does: what is not delayed leaves at once, and a millisecond is one.
async fn wait_until(moment: Instant) {
    if moment > Instant::now() + TIMERS_LATE_BY {
        sleep_until(moment - TIMERS_LATE_BY).await;
    }
    let rest = moment.saturating_duration_since(Instant::now());
    if !rest.is_zero() {
        // Its thread sleeps and returns: there is nothing to be told.
        drop(spawn_blocking(move || std::thread::sleep(rest)).await);
    }
}
