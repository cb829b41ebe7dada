//! A TCP proxy on loopback that makes connections hang, break, slow down or lose their answers.
//!
//! It runs on a thread of its own, so that it goes on while a test blocks its runtime.

mod connection;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::free_port;
use connection::Wire;

/// What becomes of bytes and of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// They pass.
    Pass,
    /// Connections are dropped, new ones refused.
    Cut,
    /// Connections are accepted and stay open; nothing passes.
    Stall,
    /// Requests pass, answers vanish.
    SwallowAnswers,
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    mode: Mode,
    /// Of each direction.
    delay: Duration,
}

/// A proxy in front of one address. Ends, with all of its connections, when it is dropped.
///
/// Kafka tells its clients where to connect: give its `Options` an `advertised_port` of [`free_port`], and then
/// listen on that with [`on`](Self::on).
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    setting: watch::Sender<Setting>,
    /// Whether the proxy listens, once it has done what was asked of it.
    listens: watch::Receiver<bool>,
    swallowed: Arc<AtomicU64>,
}

impl Proxy {
    /// A proxy on a free port, to the port of a server on 127.0.0.1. The server need not run yet.
    pub async fn to(port: u16) -> Self {
        Self::on(free_port(), port).await
    }

    /// A proxy on a port of the caller's choice.
    ///
    /// # Panics
    /// When the port is taken.
    pub async fn on(port: u16, target: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let swallowed = Arc::new(AtomicU64::new(0));
        let (setting, wanted) = watch::channel(Setting {
            mode: Mode::Pass,
            delay: Duration::ZERO,
        });
        let (says, listens) = watch::channel(false);
        let wire = Wire {
            target,
            setting: wanted,
            swallowed: Arc::clone(&swallowed),
        };
        run_on_a_thread(serve(address, wire, says));
        let mut proxy = Self {
            address,
            setting,
            listens,
            swallowed,
        };
        proxy.until_it_listens(true).await;
        proxy
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The port on which it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Drops all connections and refuses new ones, as a server that is down. Returns when that is so.
    pub async fn cut(&mut self) {
        self.set(Mode::Cut);
        self.until_it_listens(false).await;
    }

    /// Lets everything pass again. Returns when it listens.
    ///
    /// A connection that lost answers is closed; one that was stalled goes on.
    pub async fn heal(&mut self) {
        self.set(Mode::Pass);
        self.until_it_listens(true).await;
    }

    /// From now on nothing passes: connections are accepted and hang.
    pub fn stall(&self) {
        self.set(Mode::Stall);
    }

    /// From now on requests reach the server and its answers vanish.
    pub fn swallow_answers(&self) {
        self.set(Mode::SwallowAnswers);
    }

    /// From now on each direction takes this much longer.
    pub fn delay(&self, delay: Duration) {
        self.setting.send_modify(|setting| setting.delay = delay);
    }

    /// How many bytes of answers vanished so far.
    #[must_use]
    pub fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::SeqCst)
    }

    fn set(&self, mode: Mode) {
        self.setting.send_modify(|setting| setting.mode = mode);
    }

    async fn until_it_listens(&mut self, wanted: bool) {
        let done = self.listens.wait_for(|listens| *listens == wanted);
        let done = tokio::time::timeout(Duration::from_secs(10), done).await;
        assert!(
            matches!(done, Ok(Ok(_))),
            "the proxy cannot listen on {}",
            self.address
        );
    }
}

pub(crate) fn run_on_a_thread(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("the system has room for one more runtime");
    std::thread::Builder::new()
        .name("testkit-proxy".into())
        .spawn(move || runtime.block_on(work))
        .expect("the system has room for one more thread");
}

/// Listens until cut, waits until healed, and so on; ends when the proxy is dropped.
async fn serve(address: SocketAddr, wire: Wire, listens: watch::Sender<bool>) {
    let mut setting = wire.setting.clone();
    loop {
        let Ok(listener) = TcpListener::bind(address).await else {
            return;
        };
        listens.send_replace(true);
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(&listener, &wire, &mut connections) => {}
            cut = setting.wait_for(|setting| setting.mode == Mode::Cut) => if cut.is_err() { return },
        }
        drop(listener);
        connections.shutdown().await;
        listens.send_replace(false);
        if setting
            .wait_for(|setting| setting.mode != Mode::Cut)
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn accept(listener: &TcpListener, wire: &Wire, connections: &mut JoinSet<()>) {
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(connection::run(client, wire.clone()));
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
