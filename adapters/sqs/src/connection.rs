//! How SQS is reached: the client, as each session and each member has its own.

use std::sync::{Arc, Mutex, PoisonError};

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_sdk_sqs::Client;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use onceward_core::{ErrorKind, PublishError, SubscribeError};
use secrecy::ExposeSecret as _;

use crate::attributes::{self, Attributes};
use crate::config::{SqsConfig, SubscriberConfig};
use crate::errors::{self, Trouble};
use crate::publisher::SqsPublisher;
use crate::queue::QueueName;
use crate::subscriber::SqsSubscriber;

/// How SQS is reached.
#[derive(Debug, Clone)]
pub struct Sqs {
    config: SqsConfig,
}

impl Sqs {
    /// SQS by its configuration. It need not be there yet.
    #[must_use]
    pub fn new(config: SqsConfig) -> Self {
        Self { config }
    }

    /// Opens a session. Credentials are looked up anew.
    ///
    /// # Errors
    /// None today: what stands in the way is told by the first `check` or offer.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn publisher(&self) -> Result<SqsPublisher, PublishError> {
        let client = self.client().await;
        Ok(SqsPublisher::open(client, &self.config))
    }

    /// Joins a consumer.
    ///
    /// # Errors
    /// [`SubscribeError`] of kind `Misconfigured` for an invalid queue name, a queue that does not exist or settings that SQS does
    /// not take; `Unauthorized` when it refuses the credentials; else `Unavailable`.
    ///
    /// # Cancel safety
    /// Safe to drop.
    pub async fn subscriber(
        &self,
        member: SubscriberConfig,
    ) -> Result<SqsSubscriber, SubscribeError> {
        SqsSubscriber::join(self.clone(), member).await
    }

    pub(crate) fn config(&self) -> &SqsConfig {
        &self.config
    }

    /// A client with credentials that are looked up anew.
    ///
    /// It never repeats a call by itself: a session that could not know what it has sent twice would not be gap-free.
    pub(crate) async fn client(&self) -> Client {
        let config = &self.config;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(config.connect_timeout)
            .operation_timeout(config.request_timeout)
            .build();
        let cache = IdentityCache::lazy()
            .load_timeout(config.request_timeout)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .identity_cache(cache);
        if let Some(region) = &config.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(url) = &config.endpoint_url {
            loader = loader.endpoint_url(url);
        }
        if let Some(profile) = &config.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(key) = &config.access_key {
            let token = key.session_token.as_ref();
            loader = loader.credentials_provider(Credentials::from_keys(
                &key.id,
                key.secret.expose_secret(),
                token.map(|token| token.expose_secret().to_owned()),
            ));
        }
        Client::new(&loader.load().await)
    }
}

/// The client that a member and its ackers share: another one takes its place when credentials have run out.
///
/// A lock, as ackers live in any task; it is held for a look only.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Client>>);

impl Shared {
    pub(crate) fn new(client: Client) -> Self {
        Self(Arc::new(Mutex::new(client)))
    }

    pub(crate) fn get(&self) -> Client {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set(&self, client: Client) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = client;
    }
}

/// A queue that exists.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    pub(crate) url: String,
    pub(crate) attributes: Attributes,
}

/// Asks SQS for the name of one queue. An answer of any content is contact, unless it is that nobody knows us.
pub(crate) async fn reach(client: &Client) -> Result<(), Trouble> {
    let asked = client.list_queues().max_results(1).send().await;
    match asked.map_err(errors::trouble) {
        // Who may publish need not be allowed to list.
        Err(trouble) if trouble.unanswered || trouble.credentials => Err(trouble),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Looks a queue up. Two calls, one if its URL is known.
pub(crate) async fn find(client: &Client, name: &QueueName) -> Result<Queue, Trouble> {
    let found = look_up(client, name).await;
    found.map_err(|trouble| match trouble.kind {
        ErrorKind::UnknownTopic => trouble.saying(format!(
            "there is no queue {name}; make it, or correct its name or region"
        )),
        ErrorKind::Unavailable
        | ErrorKind::Throttled
        | ErrorKind::Unauthorized
        | ErrorKind::TooLarge
        | ErrorKind::Rejected => trouble,
    })
}

async fn look_up(client: &Client, name: &QueueName) -> Result<Queue, Trouble> {
    let url = match name.url() {
        Some(url) => url.to_owned(),
        None => {
            let found = client
                .get_queue_url()
                .queue_name(name.as_str())
                .send()
                .await;
            let found = found.map_err(errors::trouble)?;
            found.queue_url.unwrap_or_default()
        }
    };
    let attributes = attributes::ask(client, &url).await?;
    Ok(Queue { url, attributes })
}
