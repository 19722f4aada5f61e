//! The middleware of all routes.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, REFERRER_POLICY,
    RETRY_AFTER, SET_COOKIE, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use querywatch::{RoundTrips, Scope};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tracing::Instrument;

use super::body;
use super::client_ip;
use super::error::{ApiError, reports_failure};
use super::etag::{self, Conditions};
use super::request_id;
use super::route::{Route, UNMATCHED};
use super::route_table::RouteTable;
use super::settings::HttpSettings;
use super::state::HttpState;
use super::trace_context;
use super::{encoding, head_limits};

/// The limits of a request body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimit {
    /// The maximum size in bytes, for the error message.
    pub(super) bytes: usize,
    /// The timeout of the body, the only limit of routes that wait for the model.
    pub(super) time: Duration,
}

const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-store");
const API_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The state of the middleware.
#[derive(Clone)]
struct Middleware {
    http: HttpState,
    routes: Arc<RouteTable>,
}

/// Adds the shared layers to the routes. A request passes them in this order.
///
/// All of them form one router layer, because each layer boxes every route once more.
pub fn wrap(router: Router, http: &HttpState, routes: Arc<RouteTable>) -> Router {
    let settings = &http.settings;
    let state = Middleware { http: http.clone(), routes };
    let layers = ServiceBuilder::new()
        .layer(from_fn_with_state(state.clone(), request_context))
        .layer(cors(settings))
        // Inside the headers, the log and the request id, so that a response after a panic has them too.
        .layer(CatchPanicLayer::custom(panicked))
        // Does not compress event streams and small responses.
        .layer(CompressionLayer::new())
        // A little less than the request timeout, so that a slow body is the client's error and not the server's.
        .layer(Extension(BodyLimit { bytes: settings.max_body_bytes, time: settings.request_timeout() * 9 / 10 }))
        .layer(DefaultBodyLimit::max(settings.max_body_bytes))
        .layer(from_fn_with_state(state, within_compression));
    router
        .fallback(async || ApiError::not_found("path"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(layers)
}

/// The layers before compression: streams are wrapped, because the compression polls them past their end, and bytes are
/// hashed.
async fn within_compression(State(state): State<Middleware>, request: Request, next: Next) -> Response {
    let route = Route::of(&request);
    let is_head = request.method() == Method::HEAD;
    let response = etag::tag(request, |request| timeout(&state, request, next)).await;
    // The body of a response to HEAD is not sent.
    if is_head { response } else { body::supervise(response, || route.name(), &state.http.requests) }
}

/// Applies the request timeout, except to routes that wait for the model, and ends all requests at the shutdown
/// deadline. The response of a stream begins at once.
async fn timeout(state: &Middleware, request: Request, next: Next) -> Response {
    let awaits_model =
        request.extensions().get::<MatchedPath>().is_some_and(|path| state.routes.awaits_model(path.as_str()));
    let limit = async {
        if awaits_model {
            std::future::pending::<()>().await;
        } else {
            tokio::time::sleep(state.http.settings.request_timeout()).await;
        }
    };
    tokio::select! {
        biased;
        response = next.run(request) => response,
        () = limit => ApiError::overloaded("the request timed out").into_response(),
        () = state.http.streams_end.cancelled() => ApiError::overloaded("the server is shutting down").into_response(),
    }
}

/// Adds a request id, a log line and security headers to every response.
async fn request_context(State(state): State<Middleware>, request: Request, next: Next) -> Response {
    client_ip::log_untrusted_proxy(&state.http, &request);
    let id = request_id::of(request.headers());
    let mut response = request_id::serve(Arc::clone(&id), trace(&state, &id, request, next)).await;
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(request_id::HEADER, value);
    }
    security_headers(headers, state.http.settings.uses_tls());
    response
}

async fn trace(state: &Middleware, id: &str, mut request: Request, next: Next) -> Response {
    let http = &state.http;
    let began = Instant::now();
    let route = Route::of(&request);
    let name = route.name();
    let (method, path) = (route.method, route.path());
    #[cfg(not(feature = "otlp"))]
    let span = tracing::info_span!("request", request_id = id, method, route = path);
    #[cfg(feature = "otlp")]
    let span =
        tracing::info_span!("request", request_id = id, method, route = path, otel.name = name, otel.kind = "server");
    // Unknown methods have no budget.
    let known = state.routes.budget(request.method(), path);
    let mut scope = Scope::new(&http.watch, &name).request_id(id);
    if let Some(trace) = trace_context::traceparent(request.headers()) {
        scope = scope.traceparent(trace);
        #[cfg(feature = "otlp")]
        trace_context::continue_trace(&span, trace);
    }
    if let Some(statements) = known {
        scope = scope.budget(statements);
    }
    let conditions = Conditions::of(&request);
    let answer = async {
        if let Err(error) = head_limits::check(&request) {
            return error.into_response();
        }
        encoding::accept_identity(request.headers_mut());
        next.run(request).await
    };
    let (mut response, report) = scope.run(answer.instrument(span.clone())).await;
    conditions.apply(&mut response);
    let (status, issued, took) = (response.status(), report.statements, began.elapsed());
    let RoundTrips { total, sequential, .. } = report.round_trips;
    // Count rejected methods together, not as routes of their own.
    let counted = if status == StatusCode::METHOD_NOT_ALLOWED { UNMATCHED } else { &name };
    http.requests.count(counted, status, took);
    #[cfg(feature = "otlp")]
    trace_context::record_status(&span, status);
    let (latency_ms, is_failed) = (milliseconds(took), reports_failure(&response));
    span.in_scope(|| {
        if is_failed {
            tracing::error!(
                status = status.as_u16(),
                latency_ms,
                statements = issued,
                round_trips = sequential,
                "answered"
            );
        } else {
            tracing::info!(
                status = status.as_u16(),
                latency_ms,
                statements = issued,
                round_trips = sequential,
                "answered"
            );
        }
    });
    if http.settings.server_timing {
        let db = milliseconds(report.db_time);
        let timing = format!(
            "total;dur={latency_ms}, db;dur={db}, db_queries;desc=\"{issued}\", \
             db_round_trips;desc=\"{total}\", db_sequential;desc=\"{sequential}\""
        );
        if let Ok(value) = HeaderValue::from_str(&timing) {
            response.headers_mut().insert(HeaderName::from_static("server-timing"), value);
        }
    }
    response
}

/// Rounds to microseconds.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn security_headers(headers: &mut HeaderMap, tls: bool) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Pages set their own, less strict policy.
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(API_POLICY);
    // Tokens, cookies, errors and momentary values must not be cached. Other responses have set the header.
    if headers.contains_key(SET_COOKIE) {
        headers.insert(CACHE_CONTROL, NOT_KEPT);
    } else {
        headers.entry(CACHE_CONTROL).or_insert(NOT_KEPT);
    }
    if tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000; includeSubDomains"));
    }
}

fn cors(settings: &HttpSettings) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(settings.allowed_origins())
        .allow_credentials(true)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("x-csrf-token"), request_id::HEADER])
        .expose_headers([
            request_id::HEADER,
            RETRY_AFTER,
            ETAG,
            CONTENT_DISPOSITION,
            HeaderName::from_static("x-ratelimit-limit"),
            HeaderName::from_static("x-ratelimit-remaining"),
        ])
        .max_age(Duration::from_secs(600))
}

#[expect(clippy::needless_pass_by_value, reason = "the signature is tower-http's")]
fn panicked(payload: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::internal(&format_args!("panic: {}", body::panic_message(&*payload))).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use axum::body::{Body, to_bytes};
    use axum::extract::{ConnectInfo, Path};
    use axum::routing::get;
    use clap::Parser;
    use futures_util::StreamExt as _;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    use super::super::client_ip::UntrustedProxies;
    use super::super::requests::Requests;
    use super::super::state::Http;
    use super::body::FailureFlag;
    use super::*;

    use super::super::admission::Admission;
    use super::super::connections::{Connections, Limits};
    use super::super::rate_limit::{RateLimitSettings, RateLimits};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        settings: HttpSettings,
    }

    fn http() -> HttpState {
        let settings = Cli::parse_from(["tutord", "--trusted-proxies", "10.0.0.0/8"]).settings;
        let cache = readthrough::Cache::builder().enabled(false).build().unwrap();
        HttpState::new(Http {
            settings,
            watch: querywatch::Watch::builder().build(),
            requests: Requests::default(),
            untrusted_proxies: UntrustedProxies::default(),
            limits: Arc::new(RateLimits::new(RateLimitSettings::default(), cache)),
            admission: Admission::new(false),
            connections: Connections::new(Limits { connections: 16, idle: Duration::from_secs(1) }),
            streams_end: CancellationToken::new(),
        })
    }

    fn wrapped(router: Router, http: &HttpState) -> Router {
        wrap(router, http, Arc::default())
    }

    /// A server of the API has no route that panics.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_is_an_answer_like_any_other() {
        let http = http();
        let routes = Router::new().route("/panics", get(async || -> () { panic!("secret") }));
        let request = Request::get("/panics")
            .header("host", "localhost")
            .header("origin", "http://localhost:8080")
            .body(Body::empty())
            .unwrap();
        let response = wrapped(routes, &http).oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        let headers = response.headers().clone();
        for name in ["x-request-id", "x-content-type-options", "x-frame-options", "access-control-allow-origin"] {
            assert!(headers.contains_key(name), "{name}");
        }
        let body: serde_json::Value =
            serde_json::from_slice(&to_bytes(response.into_body(), 10_000).await.unwrap()).unwrap();
        assert_eq!(body["error"]["code"], "INTERNAL_SERVER_ERROR");
        let details = serde_json::json!({"request_id": headers["x-request-id"].to_str().unwrap()});
        assert_eq!(body["error"]["details"], details, "nothing but the request's id");
    }

    /// Log lines as they are written.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// Collects what this thread logs as long as the guard is there.
        fn collect(&self) -> tracing::subscriber::DefaultGuard {
            let lines = self.clone();
            let log = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_max_level(tracing::Level::DEBUG)
                .with_writer(move || lines.clone());
            tracing::subscriber::set_default(log.finish())
        }

        /// Returns the lines since the last call.
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_proxy_that_is_not_trusted_is_logged_once() {
        let http = http();
        let lines = Lines::default();
        let _collected = lines.collect();
        let warnings = async |peer: String, header: &'static str| {
            let peer: SocketAddr = peer.parse().unwrap();
            let mut request = Request::get("/").header(header, "for=192.0.2.1").body(Body::empty()).unwrap();
            request.extensions_mut().insert(ConnectInfo(peer));
            wrapped(Router::new(), &http).oneshot(request).await.unwrap();
            let log = lines.take();
            log.lines().filter(|line| line.contains("TRUSTED_PROXIES")).map(str::to_owned).collect::<Vec<_>>()
        };
        let nothing: [&str; 0] = [];
        assert_eq!(warnings("10.0.0.1:5000".to_owned(), "x-forwarded-for").await, nothing, "a trusted one");
        assert_eq!(warnings("198.51.100.1:5000".to_owned(), "accept").await, nothing, "not forwarded");
        for header in ["x-forwarded-for", "forwarded"] {
            let peer = if header == "forwarded" { "[2001:db8::7]:5000" } else { "203.0.113.7:5000" };
            let first = warnings(peer.to_owned(), header).await;
            assert!(matches!(&first[..], [line] if line.contains("WARN") && line.contains(header)), "{first:?}");
            assert_eq!(warnings(peer.replace("5000", "5001"), header).await, nothing, "{header} again");
        }
        // Any client can send the header, so the number of log lines is bounded.
        let mut logged = 2;
        for number in 0..client_ip::MAX_LOGGED {
            logged += warnings(format!("198.51.100.{number}:5000"), "forwarded").await.len();
        }
        assert_eq!(logged, client_ip::MAX_LOGGED);
    }

    /// Pieces, then an error, a panic, the end, or nothing more.
    async fn pieces(Path(end): Path<String>) -> (FailureFlag, Body) {
        let flag = FailureFlag::default();
        let told = flag.clone();
        // Panics if polled after its end, like `unfold` and most streams.
        let pieces = futures_util::stream::unfold(0, move |sent| {
            let (end, told) = (end.clone(), told.clone());
            async move {
                match (sent, end.as_str()) {
                    (0..3, _) => Some((Ok("a piece".repeat(100)), sent + 1)),
                    (3, "error") => Some((Err(std::io::Error::other("no more pieces")), 4)),
                    (3, "panic") => panic!("out of pieces"),
                    (3, "told") => {
                        told.set();
                        None
                    }
                    (3, "never") => std::future::pending().await,
                    _ => None,
                }
            }
        });
        (flag, Body::from_stream(pieces))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_body_that_fails_after_its_head_is_logged_and_counted() {
        let http = http();
        let lines = Lines::default();
        let _collected = lines.collect();
        for coding in ["identity", "gzip"] {
            for (end, failure) in [
                ("error", Some("no more pieces")),
                ("panic", Some("panic: out of pieces")),
                ("told", Some("the last event tells the client")),
                ("end", None),
                ("never", None),
            ] {
                let routes = Router::new().route("/pieces/{end}", get(pieces));
                let id = format!("{coding}-{end}");
                let request = Request::get(format!("/pieces/{end}"))
                    .header("host", "localhost")
                    .header("accept-encoding", coding);
                let request = request.header("x-request-id", &id).body(Body::empty()).unwrap();
                let failed_before = http.requests.recent.overall().failed;
                let response = wrapped(routes, &http).oneshot(request).await.unwrap();
                assert_eq!(response.status(), 200);
                assert_eq!(response.headers()["x-accel-buffering"], "no");
                assert_eq!(response.headers()["cache-control"], "no-store, no-transform");
                assert_eq!(response.headers().contains_key("content-encoding"), coding == "gzip");
                let mut body = response.into_body().into_data_stream();
                let mut whole = true;
                if end == "never" {
                    drop(body);
                } else {
                    while let Some(piece) = body.next().await {
                        whole &= piece.is_ok();
                    }
                }
                assert_eq!(whole, !matches!(end, "error" | "panic"), "{id}");
                assert_eq!(http.requests.recent.overall().failed - failed_before, u64::from(failure.is_some()), "{id}");
                let log = lines.take();
                let of_body = log.lines().find(|line| line.contains("response body failed"));
                assert_eq!(of_body.is_some(), failure.is_some(), "{log}");
                if let (Some(line), Some(failure)) = (of_body, failure) {
                    assert!(line.contains("ERROR") && line.contains(&id) && line.contains(failure), "{line}");
                }
                assert_eq!(log.contains("the client disconnected"), end == "never", "{log}");
            }
        }
        let (mut registry, mut metrics) = (Registry::with_prefix("tutord"), String::new());
        http.requests.register(&mut registry);
        text::encode(&mut metrics, &registry).unwrap();
        assert!(metrics.contains("tutord_http_bodies_failed_total{route=\"GET /pieces/{end}\"} 6\n"));
    }
}
