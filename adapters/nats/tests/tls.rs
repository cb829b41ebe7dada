//! Encrypted connections, with certificates made for the test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use onceward_core::{ErrorKind, Publisher as _, Route};
use onceward_nats::{NatsConfig, NatsPublisher, Tls};
use onceward_testkit::Scratch;
use onceward_testkit::nats::{Nats, Options};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate for 127.0.0.1 and its key.
fn certificate(directory: &Path, name: &str, authority: &Authority) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let (public, private) = (
        directory.join(format!("{name}.pem")),
        directory.join(format!("{name}.key")),
    );
    fs::write(&public, certificate.pem()).unwrap();
    fs::write(&private, key.serialize_pem()).unwrap();
    (public, private)
}

async fn reachable(config: &NatsConfig) -> Result<ErrorKind, ErrorKind> {
    let connected = NatsPublisher::connect(config).await;
    let mut session = connected.map_err(|error| error.kind)?;
    let mut reports = session.check(&[Route::new("nobody.made.this")]).await;
    let state = reports.remove(0).state;
    state.map_or_else(|error| Ok(error.kind), |_| Err(ErrorKind::Rejected))
}

#[tokio::test]
async fn a_server_is_trusted_by_its_authority_and_trusts_us_by_ours() {
    let scratch = Scratch::new("tls");
    let directory = scratch.path();
    let (ours, other) = (authority(), authority());
    let (ours_file, other_file) = (directory.join("ours.pem"), directory.join("other.pem"));
    fs::write(&ours_file, ours.pem()).unwrap();
    fs::write(&other_file, other.pem()).unwrap();
    let server = certificate(directory, "server", &ours);
    let client = certificate(directory, "client", &ours);
    let nats = Nats::start(Options {
        config: format!(
            "tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {ours_file:?}, verify: true }}\n",
            server.0, server.1
        ),
        ..Options::default()
    })
    .await;
    let mut config = NatsConfig::new([nats.url().replace("nats://", "tls://")]);
    config.tls = Tls {
        required: true,
        root_certificates: vec![ours_file],
        client_certificate: Some(client),
        ..Tls::default()
    };

    assert_eq!(reachable(&config).await, Ok(ErrorKind::UnknownTopic));

    let mut stranger = config.clone();
    stranger.tls.client_certificate = None;
    assert_eq!(reachable(&stranger).await, Err(ErrorKind::Unavailable));
    config.tls.root_certificates = vec![other_file];
    assert_eq!(reachable(&config).await, Err(ErrorKind::Unavailable));
}
