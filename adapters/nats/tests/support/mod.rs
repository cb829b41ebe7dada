//! A server with users and their rights.

use async_nats::jetstream;
use onceward_nats::{Credentials, NatsConfig};
use onceward_testkit::nats::{Nats, Options};

/// The password of every user.
const PASSWORD: &str = "secret";

/// A server with these users, as its configuration writes them, and an `admin` besides, who may do everything and is given. Their
/// password is `secret`.
pub(crate) async fn server_with_users(users: &str) -> (Nats, jetstream::Context) {
    let admin = format!("{{ user: admin, password: {PASSWORD} }}");
    let config =
        format!("accounts {{ A {{ jetstream: enabled\n users: [ {admin}\n {users} ] }} }}");
    let nats = Nats::start(Options {
        config,
        ..Options::default()
    })
    .await;
    let admin =
        async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), PASSWORD.to_owned());
    let client = admin.connect(nats.url()).await.unwrap();
    (nats, jetstream::new(client))
}

/// How this user reaches it.
pub(crate) fn as_user(nats: &Nats, user: &str) -> NatsConfig {
    let mut config = NatsConfig::new([nats.url()]);
    config.credentials = Credentials::UserPassword {
        user: user.to_owned(),
        password: PASSWORD.into(),
    };
    config
}
