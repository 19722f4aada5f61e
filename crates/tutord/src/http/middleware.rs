//! The middleware of all routes.
//!
//! One layer with one future: axum clones and boxes each layer of each route for every request.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, ORIGIN, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either};
use tower::{Layer as _, Service, ServiceExt as _, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate as _};
use tower_http::cors::CorsLayer;

use super::body;
use super::client_ip;
use super::error::ApiError;
use super::etag;
use super::exchange::Exchange;
use super::request_id;
use super::route::{Route, Routes};
use super::route_table::RouteTable;
use super::settings::HttpSettings;
use super::state::HttpState;
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
const VARY_BY_CODING: HeaderValue = HeaderValue::from_static("accept-encoding");
/// The length in bytes from which the compression layer compresses.
const MIN_COMPRESSED: u64 = 32;
/// The number of headers of a usual response.
pub(super) const HEADERS: usize = 12;

/// The state of the middleware.
struct Shared {
    http: HttpState,
    routes: Routes,
    cors: CorsLayer,
    /// The headers that `cors` adds to the response to a request without an origin.
    without_origin: HeaderMap,
    body_limit: BodyLimit,
    uses_tls: bool,
}

/// Adds the shared middleware to the routes.
pub fn wrap(router: Router, http: &HttpState, routes: Arc<RouteTable>) -> Router {
    let settings = &http.settings;
    let cors = cors(settings);
    let shared = Arc::new(Shared {
        http: http.clone(),
        routes: Routes::new(routes),
        without_origin: headers_without_origin(&cors),
        cors,
        // A little less than the request timeout, so that a slow body is the client's error and not the server's.
        body_limit: BodyLimit { bytes: settings.max_body_bytes, time: settings.request_timeout() * 9 / 10 },
        uses_tls: settings.uses_tls(),
    });
    router
        .fallback(async || ApiError::not_found("path"))
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .layer(tower::layer::layer_fn(move |inner| Middleware { inner, shared: Arc::clone(&shared) }))
}

/// A route with the middleware around it.
#[derive(Clone)]
struct Middleware<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Service<Request> for Middleware<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        client_ip::log_untrusted_proxy(&shared.http, &request);
        let id = request_id::of(request.headers());
        let exchange = Exchange::begin(&shared.http, shared.routes.of(&request), &id, &request);
        let answer = match head_limits::check(&request) {
            Ok(()) => {
                encoding::accept_identity(request.headers_mut());
                Either::Left(self.answer(request, &exchange.route))
            }
            Err(error) => Either::Right(async { error.into_response() }),
        };
        let id_header = HeaderValue::from_str(&id);
        let served = async move {
            let answer = pin!(answer);
            let mut response = exchange.run(&shared.http, answer).await;
            let headers = response.headers_mut();
            if let Ok(id) = id_header {
                headers.insert(request_id::HEADER, id);
            }
            security_headers(headers, shared.uses_tls);
            Ok(response)
        };
        Box::pin(request_id::serve(id, served))
    }
}

impl<S> Middleware<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    /// Calls the route, with CORS, compression and a response instead of a panic.
    fn answer(&mut self, mut request: Request, route: &Arc<Route>) -> impl Future<Output = Response> + Send + use<S> {
        let shared = Arc::clone(&self.shared);
        let (route, is_head) = (Arc::clone(route), request.method() == Method::HEAD);
        if !request.method().is_safe() {
            request.extensions_mut().insert(shared.body_limit);
            DefaultBodyLimit::max(shared.body_limit.bytes).apply(&mut request);
        }
        let headers = request.headers();
        if request.method() != Method::OPTIONS
            && !headers.contains_key(ORIGIN)
            && !headers.contains_key(ACCEPT_ENCODING)
        {
            // Boxed: each async function around a future holds it twice.
            let answer = self.inner.call(request).boxed();
            return Either::Left(async move {
                let answer = async {
                    let mut response = within_compression(&shared, &route, is_head, answer).await;
                    add_headers_of_compression(&mut response);
                    response
                };
                let answer = AssertUnwindSafe(pin!(answer)).catch_unwind().await;
                let mut response = answer.unwrap_or_else(|payload| panicked(&*payload));
                add_headers_of_cors(&shared.without_origin, response.headers_mut());
                response
            });
        }
        let inner = self.inner.clone();
        let cors = shared.cors.clone();
        let respond = service_fn(move |request| {
            let (shared, route, mut inner) = (Arc::clone(&shared), Arc::clone(&route), inner.clone());
            async move { Ok::<_, Infallible>(within_compression(&shared, &route, is_head, inner.call(request)).await) }
        });
        let compressed = service_fn(move |request| {
            // Does not compress event streams and small responses.
            let answer = CompressionLayer::new().layer(respond.clone()).oneshot(request);
            async move {
                let response = AssertUnwindSafe(answer).catch_unwind().await;
                // A response after a panic has the headers of CORS, too.
                Ok::<_, Infallible>(match response {
                    Ok(Ok(response)) => response.map(axum::body::Body::new),
                    Ok(Err(never)) => match never {},
                    Err(payload) => panicked(&*payload),
                })
            }
        });
        // Boxed, so that the future of the requests above is small.
        Either::Right(cors.layer(compressed).oneshot(request).map(|Ok(response)| response).boxed())
    }
}

/// Adds the header that the compression adds to the response to a request without codings.
fn add_headers_of_compression(response: &mut Response) {
    let headers = response.headers();
    // A quick check for most responses: the predicate accepts JSON of this length.
    let is_long_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
        && response.body().size_hint().lower() >= MIN_COMPRESSED;
    let is_compressible = !headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(CONTENT_RANGE)
        && (is_long_json || DefaultPredicate::new().should_compress(response));
    if is_compressible {
        response.headers_mut().append(VARY, VARY_BY_CODING);
    }
}

/// Adds the headers that CORS adds to the response to a request without an origin.
fn add_headers_of_cors(added: &HeaderMap, headers: &mut HeaderMap) {
    headers.reserve(HEADERS.saturating_sub(headers.len()));
    for (name, value) in added {
        if name == VARY {
            headers.append(name, value.clone());
        } else {
            headers.insert(name, value.clone());
        }
    }
}

/// Returns the headers that CORS adds to the response to a request without an origin.
fn headers_without_origin(cors: &CorsLayer) -> HeaderMap {
    let empty = service_fn(async |_: Request| Ok::<_, Infallible>(Response::<axum::body::Body>::default()));
    // Nothing waits.
    let response = cors.layer(empty).oneshot(Request::default()).now_or_never();
    response.map(|Ok(response)| response.into_parts().0.headers).unwrap_or_default()
}

/// Awaits the route. Streams are wrapped, because the compression polls them past their end, and bytes are hashed.
async fn within_compression(
    shared: &Shared,
    route: &Route,
    is_head: bool,
    answer: impl Future<Output = Result<Response, Infallible>>,
) -> Response {
    let mut response = timeout(shared, route, answer).await;
    if route.has_etag {
        response = etag::tag(response).await;
    }
    // The body of a response to HEAD is not sent.
    if is_head { response } else { body::supervise(response, &route.name, &shared.http.requests) }
}

/// Applies the request timeout, except to routes that wait for the model, and ends all requests at the shutdown
/// deadline. The response of a stream begins at once.
async fn timeout(
    shared: &Shared,
    route: &Route,
    answer: impl Future<Output = Result<Response, Infallible>>,
) -> Response {
    let limit = async {
        if route.awaits_model {
            std::future::pending::<()>().await;
        } else {
            tokio::time::sleep(shared.http.settings.request_timeout()).await;
        }
    };
    tokio::select! {
        biased;
        response = answer.map(|Ok(response)| response) => response,
        () = limit => ApiError::overloaded("the request timed out").into_response(),
        () = shared.http.streams_end.cancelled() => ApiError::overloaded("the server is shutting down").into_response(),
    }
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

fn panicked(payload: &(dyn Any + Send)) -> Response {
    ApiError::internal(&format_args!("panic: {}", body::panic_message(payload))).into_response()
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

    /// Most requests pass neither the layer of CORS nor that of compression.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_response_has_the_same_headers_with_and_without_the_layers() {
        let http = http();
        let routes = Router::new()
            .route("/json", get(async || axum::Json(vec![1; 100])))
            .route("/short-json", get(async || axum::Json(1)))
            .route("/short", get(async || "a"))
            .route("/coded", get(async || ([(CONTENT_ENCODING, "br"), (VARY, "cookie")], "a".repeat(100))))
            .route("/panics", get(async || -> () { panic!("secret") }));
        for path in ["/json", "/short-json", "/short", "/coded", "/panics", "/unknown"] {
            let mut seen = Vec::new();
            for (name, value) in [("accept", "*/*"), ("accept-encoding", "identity"), ("origin", "http://elsewhere")] {
                let request = Request::get(path).header("host", "localhost").header(name, value);
                let response =
                    wrapped(routes.clone(), &http).oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
                let mut headers: Vec<_> = response
                    .headers()
                    .iter()
                    .filter(|(name, _)| **name != request_id::HEADER)
                    .map(|(name, value)| (name.to_string(), value.clone()))
                    .collect();
                headers.sort();
                seen.push((response.status(), headers));
            }
            assert!(seen[0].1.iter().any(|(name, value)| name == "vary" && value == "origin"), "{:?}", seen[0]);
            assert!(seen[0] == seen[1] && seen[0] == seen[2], "{path}: {seen:#?}");
        }
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
