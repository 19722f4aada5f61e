//! The server: accepts connections, limits them, and drains them at shutdown.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::response::IntoResponse as _;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::Service as _;

use crate::auth::presented_token;
use crate::config::Config;
use crate::http::admission::{Access, Admission};
use crate::http::connections::{Closure, Connections, InFlight, Slot};
use crate::http::error::ApiError;
use crate::http::timed_io::TimedIo;
use crate::router::router;
use crate::state::AppState;

/// The backlog of the listener; the kernel limits it to `net.core.somaxconn`, by default 4,096.
const BACKLOG: u32 = 65_535;
/// The time in which pending invalidations are sent at shutdown.
const CACHE_GRACE: Duration = Duration::from_secs(1);
/// The time that streams get at shutdown to store what they received.
const STREAMS_GRACE: Duration = Duration::from_secs(2);
/// The pause before the next accept when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The paths served on the extra connections for liveness checks.
const LIVE_PATHS: [&str; 2] = ["/live", "/api/health/live"];

/// The paths whose requests are never shed.
const HEALTH_PATHS: [&str; 7] =
    ["/live", "/api/health/live", "/health", "/api/health", "/ready", "/api/health/ready", "/metrics"];

/// The response to a refused connection.
const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
    content-type: application/json\r\ncontent-length: 73\r\n\r\n\
    {\"error\":{\"code\":\"OVERLOADED\",\"message\":\"too many connections are open\"}}";
/// The response to a connection whose request head timed out.
const HEAD_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Binds the configured address.
///
/// # Errors
/// Returns an error if the address is in use, or does not belong to this machine.
pub(crate) fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    let address = config.http.listen;
    match listen(address) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => anyhow::bail!(
            "address in use: {address}; stop the other process or choose another address with LISTEN_ADDR/--listen"
        ),
        bound => bound.with_context(|| format!("could not listen on {address} (LISTEN_ADDR/--listen)")),
    }
}

/// Listens with a long backlog. The kernel drops connections that exceed the backlog, and their clients retry after 200
/// ms, 600 ms and 1.4 s.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Like the standard library: a restart must not wait for old connections in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until shutdown begins, then stops accepting and drains: requests and streams get
/// `SHUTDOWN_TIMEOUT_SECONDS` to complete. Then the remaining requests get a 503, and streams are ended and store what
/// they received. The `further` routes are not part of the API.
pub async fn serve(state: AppState, listener: TcpListener, further: Router) {
    accept_and_drain(&state, listener, router(&state, further)).await;
    stop(state).await;
}

/// Stops the background tasks and waits for them; then sends the pending invalidations.
pub(crate) async fn stop(state: AppState) {
    let (background, cache) = (state.background.clone(), state.cache.clone());
    background.shutdown.cancel();
    drop(state);
    if tokio::time::timeout(STREAMS_GRACE, background.wait()).await.is_err() {
        tracing::warn!("background tasks were still running at the shutdown deadline");
    }
    if let Err(unsent) = cache.close(CACHE_GRACE).await {
        tracing::warn!("{unsent}");
    }
}

async fn accept_and_drain(state: &AppState, listener: TcpListener, router: Router) {
    let connections = Arc::clone(&state.http.connections);
    let _watch = AbortOnDropHandle::new(tokio::spawn({
        let connections = Arc::clone(&connections);
        async move { connections.watch().await }
    }));
    let _admission = AbortOnDropHandle::new(tokio::spawn({
        let admission = Arc::clone(&state.http.admission);
        async move { admission.watch().await }
    }));
    let tasks = TaskTracker::new();
    tokio::select! {
        () = state.background.shutdown.cancelled() => {}
        () = accept(state, &listener, &router, &tasks) => {}
    }
    drop(listener);
    connections.begin_closing();
    tasks.close();
    let deadline = async {
        tokio::time::sleep(Duration::from_secs(state.config.http.shutdown_timeout_seconds)).await;
        state.http.streams_end.cancel();
        tokio::time::sleep(STREAMS_GRACE).await;
    };
    tokio::select! {
        () = tasks.wait() => {}
        () = deadline => {
            tracing::warn!(open = connections.open(), "requests were still open at the shutdown deadline");
            connections.close_all();
        }
    }
}

async fn accept(state: &AppState, listener: &TcpListener, router: &Router, tasks: &TaskTracker) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::debug!(%error, "could not accept a connection");
                state.http.connections.out_of_descriptors();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let address = (!state.config.http.trusts_proxy(peer.ip())).then(|| peer.ip());
        match state.http.connections.admit(address) {
            Ok(slot) => drop(tasks.spawn(connection(
                stream,
                peer,
                slot,
                router.clone(),
                (Arc::clone(&state.http.connections), Arc::clone(&state.http.admission)),
            ))),
            // Write as much as the socket accepts at once.
            Err(_) => drop(stream.into_std().and_then(|mut stream| stream.write(REFUSED))),
        }
    }
}

/// Serves the requests of one connection.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    slot: Slot,
    router: Router,
    (connections, admission): (Arc<Connections>, Arc<Admission>),
) {
    // A piece of a stream must not wait for the acknowledgement of the previous one, which can take 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY on a connection");
    }
    let state = Arc::clone(&slot.connection);
    let io = TokioIo::new(TimedIo::new(stream, Arc::clone(&state)));
    let service = service_fn(|mut request: Request<Incoming>| {
        let in_flight = state.begin_request();
        request.extensions_mut().insert(ConnectInfo(peer));
        let (mut router, state) = (router.clone(), Arc::clone(&state));
        let (connections, admission) = (Arc::clone(&connections), Arc::clone(&admission));
        async move {
            let (path, access) = (request.uri().path(), Access::by(request.method()));
            let mut response = if state.is_live_only() && !LIVE_PATHS.contains(&path) {
                ApiError::overloaded("too many connections are open").into_response()
            } else if HEALTH_PATHS.contains(&path) {
                router.call(request).await?
            } else if admission.admits(access, || admission.priority(presented_token(request.headers()))) {
                admission.serve(access, router.call(request)).await?
            } else {
                shed()
            };
            if state.closes() || state.is_live_only() || connections.is_closing() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| TrackedBody { body, _in_flight: in_flight }))
        }
    });
    // `TimedIo` times the heads. hyper reads at most 100 headers; a larger bound would allocate for each request.
    let mut served = http1::Builder::new().header_read_timeout(None).serve_connection(io, service);
    tokio::select! {
        biased;
        result = &mut served => {
            if let Err(error) = result {
                tracing::debug!(%error, "a connection ended with an error");
            }
        }
        closure = state.closed() => {
            connections.count_closed(closure);
            if closure == Closure::HeadTimeout {
                // Write as much as the socket accepts at once.
                let _ = served.into_parts().io.into_inner().into_inner().try_write(HEAD_TIMEOUT);
            }
        }
    }
    drop(slot);
}

/// Returns the response to a shed request. It has no span, id or route, so that it costs next to nothing.
fn shed() -> Response<Body> {
    const BODY: &str = r#"{"error":{"code":"OVERLOADED","message":"too many requests at once; please try again"}}"#;
    let mut response = Response::new(Body::from(BODY));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The body of a response. When hyper has read it completely, the connection waits for the next request.
struct TrackedBody {
    body: Body,
    _in_flight: InFlight,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_refusal_tells_its_length() {
        let text = std::str::from_utf8(super::REFUSED).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        serde_json::from_str::<serde_json::Value>(body).unwrap();
    }
}
