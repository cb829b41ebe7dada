//! How to reach NATS, and how a session and a member behave.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// How to reach NATS. `Debug` shows neither secrets nor what may hold one.
#[derive(Clone)]
pub struct NatsConfig {
    /// `nats://host:port` or `tls://host:port`, of one cluster.
    pub servers: Vec<String>,
    /// The connection's name in the server's monitoring.
    pub name: String,
    /// Who we are.
    pub credentials: Credentials,
    /// How the connection is encrypted.
    pub tls: Tls,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long an answer of the JetStream API may take.
    pub request_timeout: Duration,
    /// How long a message that is sent may stay unreported before the session is over, and how long one may wait to be sent before it is
    /// given up as unconfirmed. Publishers only.
    pub deadline: Duration,
    /// How many messages may be unconfirmed at a time, at least 1. Publishers only.
    pub max_in_flight: usize,
}

/// Who we are to NATS.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    None,
    /// A user and a password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// A token.
    Token(SecretString),
    /// A `.creds` file with a JWT and its seed, read at each connection.
    File(PathBuf),
    /// The seed of an nkey.
    NKey(SecretString),
}

/// How the connection is encrypted.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Refuse to go on without encryption. A `tls://` server asks for it too.
    pub required: bool,
    /// Encrypt before the server's greeting, for servers with `handshake_first`.
    pub first: bool,
    /// PEM files of authorities to trust in place of the system's.
    pub root_certificates: Vec<PathBuf>,
    /// PEM files of our own certificate and its key.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

impl NatsConfig {
    /// Settings for these servers, everything else at its default.
    pub fn new<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            name: "onceward".to_owned(),
            credentials: Credentials::None,
            tls: Tls::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(15),
            max_in_flight: 4_096,
        }
    }
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<&str> = self.servers.iter().map(|s| without_user(s)).collect();
        f.debug_struct("NatsConfig")
            .field("servers", &servers)
            .field("name", &self.name)
            .field("credentials", &self.credentials)
            .field("tls", &self.tls)
            .field("connect_timeout", &self.connect_timeout)
            .field("request_timeout", &self.request_timeout)
            .field("deadline", &self.deadline)
            .field("max_in_flight", &self.max_in_flight)
            .finish()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::UserPassword { .. } => "UserPassword",
            Self::Token(_) => "Token",
            Self::File(_) => "File",
            Self::NKey(_) => "NKey",
        })
    }
}

/// The part of a URL after `user:password@`.
pub(crate) fn without_user(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, host)| host)
}

/// Which messages a member reads and how it shares them.
#[derive(Debug, Clone)]
pub struct SubscriberConfig {
    /// The durable's name, which all members share. It is made if it does not exist. With partitioned subjects it is the
    /// beginning of their names: `billing-0`, `billing-1`, ….
    pub durable: String,
    /// The subjects to read, wildcards allowed, all of one stream.
    ///
    /// Where the relay's route spreads keys (`route = "shop.{topic}.{partition/8}"`), the same token stands here in the place
    /// of the number, in each subject once and with the same number, 1 to 256. Each partition then has a durable of its own
    /// and one owner at a time, and the members share them out:
    ///
    /// ```
    /// use onceward_nats::SubscriberConfig;
    ///
    /// // Durables billing-0 … billing-7; the first reads shop.orders.*.0 and shop.payments.0.
    /// let subjects = ["shop.orders.*.{partition/8}", "shop.payments.{partition/8}"];
    /// let member = SubscriberConfig::new("billing", subjects);
    /// ```
    pub subjects: Vec<String>,
    /// The stream; none: the one that takes the first subject.
    pub stream: Option<String>,
    /// How long the server waits for an ack before it delivers again, for a durable that is made now.
    pub ack_wait: Duration,
    /// How long the server waits for an owner that went away without a word before another member takes over, for a
    /// durable that is made now; at least 1 s.
    pub takeover_after: Duration,
    /// How long a partition that goes to another member is kept for work in progress; zero: not at all. Partitioned subjects
    /// only. Default 10 s.
    pub revoke_within: Duration,
    /// How many deliveries wait in this member at most, at least 1. Its partitions share them evenly, with at least one each.
    pub buffer: usize,
}

impl SubscriberConfig {
    /// Settings for this durable and these subjects, everything else at its default.
    pub fn new<S: Into<String>>(
        durable: impl Into<String>,
        subjects: impl IntoIterator<Item = S>,
    ) -> Self {
        Self {
            durable: durable.into(),
            subjects: subjects.into_iter().map(Into::into).collect(),
            stream: None,
            ack_wait: Duration::from_secs(30),
            takeover_after: Duration::from_secs(5),
            revoke_within: Duration::from_secs(10),
            buffer: 512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let mut config = NatsConfig::new(["nats://anna:hunter2@localhost:4222"]);
        for credentials in [
            Credentials::UserPassword {
                user: "anna".to_owned(),
                password: "hunter2".into(),
            },
            Credentials::Token("hunter2".into()),
            Credentials::NKey("hunter2".into()),
        ] {
            config.credentials = credentials;

            let shown = format!("{config:?}");

            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("localhost:4222"), "{shown}");
        }
    }
}
