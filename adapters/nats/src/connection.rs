//! Connections: one that ends for good when it is lost, for sessions, and one that comes back, for members.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerError};
use onceward_core::{BoxError, ErrorKind, PublishError};
use secrecy::ExposeSecret as _;
use tokio::sync::mpsc;

use crate::config::{Credentials, NatsConfig};

/// Commands that async-nats holds beyond what a session has in flight.
const SPARE_COMMANDS: usize = 64;
/// Pings in a row that must be unanswered before async-nats closes a connection.
const UNANSWERED_PINGS: u32 = 3;
/// The least time between pings.
const LEAST_BETWEEN_PINGS: Duration = Duration::from_secs(1);
/// A server that nobody can be connected to: port 0 is never listened on.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// What happens to a connection, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happening {
    /// It is up.
    Up,
    /// It is lost.
    Down,
    /// The server told us an error of its own accord.
    Told(String),
}

/// What happens to a connection, for one of those who use it.
pub(crate) type Happenings = mpsc::UnboundedReceiver<Happening>;

/// A connection and what happens to it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) happenings: Happenings,
}

/// Connects for that many users, and comes back by itself after the connection was lost. What the server tells of its own
/// accord is told to the first of them only.
pub(crate) async fn lasting(
    config: &NatsConfig,
    users: usize,
) -> Result<(Client, Vec<Happenings>), PublishError> {
    let options = options(config).await?;
    let (senders, happenings) = (0..users).map(|_| mpsc::unbounded_channel()).unzip();
    let client = connect(config, options, senders).await?;
    Ok((client, happenings))
}

/// Connects for one session: once lost, nothing that async-nats still holds is ever sent. It is closed once nothing was heard for
/// the deadline of a message: a session that was given up cannot take back what a silent connection holds.
///
/// async-nats cannot be told not to reconnect, and would send what waits in its channel on the new connection, past
/// messages that were lost with the old one. So once connected, it only knows a server that nobody can be connected to.
pub(crate) async fn fleeting(config: &NatsConfig) -> Result<Connection, PublishError> {
    let between_pings = config.deadline / UNANSWERED_PINGS;
    let options = options(config)
        .await?
        .ping_interval(between_pings.max(LEAST_BETWEEN_PINGS))
        .max_reconnects(config.servers.len().max(1))
        .ignore_discovered_servers()
        .client_capacity(config.max_in_flight + SPARE_COMMANDS)
        .subscription_capacity(config.max_in_flight + SPARE_COMMANDS)
        .reconnect_delay_callback(|_| Duration::ZERO);
    let (sender, happenings) = mpsc::unbounded_channel();
    let client = connect(config, options, vec![sender]).await?;
    let connection = Connection { client, happenings };
    let bounded = tokio::time::timeout(
        config.connect_timeout,
        connection.client.set_server_pool(NOWHERE),
    );
    match bounded.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(unavailable("the connection was lost at once", error)),
        Err(error) => return Err(unavailable("the connection does not answer", error)),
    }
    // Lost and regained before the pool was replaced: what a session asked for on the first may be gone.
    if connection
        .client
        .statistics()
        .connects
        .load(Ordering::Relaxed)
        > 1
    {
        return Err(PublishError::new(
            ErrorKind::Unavailable,
            "the connection was lost at once",
        ));
    }
    Ok(connection)
}

async fn connect(
    config: &NatsConfig,
    options: ConnectOptions,
    senders: Vec<mpsc::UnboundedSender<Happening>>,
) -> Result<Client, PublishError> {
    let options = options.event_callback(move |event| {
        if let Some(happening) = happening(event) {
            let users = match happening {
                Happening::Told(_) => 1,
                Happening::Up | Happening::Down => senders.len(),
            };
            for sender in senders.iter().take(users) {
                // The session or member may be gone already; then nobody wants to know.
                sender.send(happening.clone()).ok();
            }
        }
        std::future::ready(())
    });
    let connected = options.connect(config.servers.as_slice()).await;
    connected.map_err(|error| match error.kind() {
        async_nats::ConnectErrorKind::Authentication
        | async_nats::ConnectErrorKind::AuthorizationViolation => {
            PublishError::with_source(ErrorKind::Unauthorized, "NATS refuses who we are", error)
        }
        async_nats::ConnectErrorKind::ServerParse
        | async_nats::ConnectErrorKind::Dns
        | async_nats::ConnectErrorKind::TimedOut
        | async_nats::ConnectErrorKind::Tls
        | async_nats::ConnectErrorKind::Io
        | async_nats::ConnectErrorKind::MaxReconnects => {
            unavailable("NATS cannot be connected to", error)
        }
    })
}

async fn options(config: &NatsConfig) -> Result<ConnectOptions, PublishError> {
    let options = ConnectOptions::new();
    let options = match &config.credentials {
        Credentials::None => options,
        Credentials::UserPassword { user, password } => {
            options.user_and_password(user.clone(), password.expose_secret().to_owned())
        }
        Credentials::Token(token) => options.token(token.expose_secret().to_owned()),
        Credentials::NKey(seed) => options.nkey(seed.expose_secret().to_owned()),
        Credentials::File(path) => options.credentials_file(path).await.map_err(|error| {
            PublishError::with_source(
                ErrorKind::Unauthorized,
                format!("the credentials in {} cannot be read", path.display()),
                error,
            )
        })?,
    };
    let tls = &config.tls;
    let mut options = options
        .name(&config.name)
        .connection_timeout(config.connect_timeout)
        .request_timeout(Some(config.request_timeout))
        .require_tls(tls.required);
    if tls.first {
        options = options.tls_first();
    }
    for path in &tls.root_certificates {
        options = options.add_root_certificates(path.clone());
    }
    if let Some((certificate, key)) = &tls.client_certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

fn happening(event: Event) -> Option<Happening> {
    match event {
        Event::Connected => Some(Happening::Up),
        Event::Disconnected | Event::Closed => Some(Happening::Down),
        Event::ServerError(ServerError::Other(text)) => Some(Happening::Told(text)),
        Event::ServerError(ServerError::AuthorizationViolation) => {
            Some(Happening::Told("Authorization Violation".to_owned()))
        }
        // Losing a delivery in the client shows as a gap in the consumer's own numbers.
        Event::ServerError(ServerError::SlowConsumer(_)) | Event::SlowConsumer(_) => None,
        Event::LameDuckMode | Event::Draining | Event::ClientError(_) => None,
    }
}

fn unavailable(what: &str, source: impl Into<BoxError>) -> PublishError {
    PublishError::with_source(ErrorKind::Unavailable, what, source)
}

#[cfg(test)]
mod tests {
    use onceward_testkit::nats::Nats;
    use onceward_testkit::proxy::Proxy;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_sessions_connection_that_is_silent_for_as_long_as_a_deadline_is_closed() {
        let nats = Nats::shared().await;
        let proxy = Proxy::to(nats.port()).await;
        let mut config = NatsConfig::new([format!("nats://{}", proxy.addr())]);
        config.deadline = Duration::from_secs(3);
        let mut connection = fleeting(&config).await.unwrap();
        assert_eq!(connection.happenings.recv().await, Some(Happening::Up));

        proxy.stall();
        let next = connection.happenings.recv();
        let told = timeout(Duration::from_secs(20), next).await;

        assert_eq!(told, Ok(Some(Happening::Down)));
    }

    #[tokio::test]
    async fn an_error_of_a_connection_shows_no_credentials() {
        for server in [
            // Nobody listens there.
            "nats://anna:hunter2@127.0.0.1:1",
            "nats://hunter2@127.0.0.1:1",
            // No addresses.
            "nats://anna:hunter2@127.0.0.1:none",
            "nats://anna:hunter2@",
        ] {
            let mut config = NatsConfig::new([server]);
            config.connect_timeout = Duration::from_secs(2);
            config.credentials = Credentials::NKey("hunter2".into());

            let error = fleeting(&config).await.unwrap_err();

            let shown = format!("{error:?} {error} {}", onceward_core::Chain(&error));
            assert!(!shown.contains("hunter2"), "{server}: {shown}");
        }
    }
}
