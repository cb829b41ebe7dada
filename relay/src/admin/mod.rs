//! The admin endpoints: whether the process lives, whether it is of use, and what it counts.

mod access;
pub(crate) mod gauges;
mod health;
mod metrics;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(crate) use metrics::Metrics;

use crate::stream::StreamStatus;

/// How long requests that are being answered may hold up a stop.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What the endpoints tell.
#[derive(Debug, Clone)]
struct Shared {
    streams: Arc<[watch::Receiver<StreamStatus>]>,
    metrics: Metrics,
}

/// The endpoints, listening.
#[derive(Debug)]
pub(crate) struct AdminServer {
    listener: TcpListener,
    token: Option<SecretString>,
}

impl AdminServer {
    /// Listens, so that an address that is taken is told at the start.
    pub(crate) async fn bind(
        listen: SocketAddr,
        token: Option<SecretString>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        Ok(Self { listener, token })
    }

    /// Where it listens, with the port that the system chose if none was asked for.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until told to stop.
    ///
    /// # Cancel safety
    /// Safe to drop: connections are closed where they stand.
    pub(crate) async fn serve(
        self,
        streams: Vec<watch::Receiver<StreamStatus>>,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let shared = Shared {
            streams: streams.into(),
            metrics,
        };
        let app = router(shared, self.token);
        let stopped = stop.clone();
        let server = axum::serve(self.listener, app)
            .with_graceful_shutdown(async move { stopped.cancelled().await });
        let server = async { server.await };
        tokio::pin!(server);
        let ended = tokio::select! {
            ended = &mut server => Some(ended),
            () = stop.cancelled() => timeout(CLOSE_WITHIN, &mut server).await.ok(),
        };
        if let Some(Err(error)) = ended {
            warn!(%error, "the admin endpoints ended");
        }
    }
}

/// Whoever may only know whether to restart or to route to us needs no token; whoever wants numbers does.
fn router(shared: Shared, token: Option<SecretString>) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/status", get(show_status))
        .layer(middleware::from_fn_with_state(
            token.map(Arc::new),
            access::check,
        ));
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .merge(guarded)
        .with_state(shared)
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let streams: Vec<StreamStatus> = shared.streams.iter().map(|s| s.borrow().clone()).collect();
    match health::not_ready(&streams) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn show_status(State(shared): State<Shared>) -> impl IntoResponse {
    let streams = shared.streams.iter().map(|s| health::describe(&s.borrow()));
    Json(serde_json::json!({ "streams": streams.collect::<Vec<_>>() }))
}

async fn show_metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, shared.metrics.render())
}
