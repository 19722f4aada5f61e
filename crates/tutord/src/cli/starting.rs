//! Responds to health checks during the start: the process is alive, but not ready.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::Listener;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::http::error::ApiError;
use crate::telemetry::health;

/// The time limit for open requests when the start is complete.
const GRACE_PERIOD: Duration = Duration::from_secs(1);

/// A shared listener, which outlives the server of the start.
struct SharedListener(Arc<TcpListener>);

impl Listener for SharedListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Responds to health checks while `work` runs, then returns the listener with the result of `work`.
pub(super) async fn while_starting<T>(
    listener: TcpListener,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(TcpListener, T)> {
    let listener = Arc::new(listener);
    let started = CancellationToken::new();
    let server = axum::serve(SharedListener(Arc::clone(&listener)), router())
        .with_graceful_shutdown(started.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());
    let outcome = work.await;
    started.cancel();
    let abort = server.abort_handle();
    if tokio::time::timeout(GRACE_PERIOD, server).await.is_err() {
        abort.abort();
        // The aborted task drops its reference to the listener.
        while Arc::strong_count(&listener) > 1 {
            tokio::task::yield_now().await;
        }
    }
    let listener = Arc::into_inner(listener).context("the listener is still in use")?;
    Ok((listener, outcome?))
}

fn router() -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/api/health", get(health::health))
        .route("/live", get(health::live))
        .route("/api/health/live", get(health::live))
        .route("/ready", get(ready))
        .route("/api/health/ready", get(ready))
        .fallback(async || ApiError::overloaded("the server is starting; retry shortly"))
        // Closes each connection, because a kept-alive one would receive these responses after the start.
        .layer(axum::middleware::map_response(async |mut response: Response| {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }))
}

async fn ready() -> Response {
    let body = json!({"status": "not_ready", "checks": {"migrations": {"status": "migrating"}}});
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
}
