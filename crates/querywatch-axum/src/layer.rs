//! The tower layer: a scope for each request.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::extract::MatchedPath;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use querywatch::{Report, Scope, Watch};
use tower_layer::Layer;
use tower_service::Service;

use crate::requests::{Finished, Requests};

/// The route of requests that match no route.
const UNMATCHED: &str = "(no route)";
/// The maximum length of a request id in bytes. Longer ids are ignored.
const MAX_REQUEST_ID: usize = 128;
/// The length of a `traceparent` of version 00 in bytes.
const TRACEPARENT: usize = 55;
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// A layer that opens a [`Scope`] for each request.
///
/// The route of the scope is the method and the matched path, such as `GET /users/{id}`. Apply the layer with
/// [`Router::layer`](axum::Router::layer) after all routes, because axum matches the path before such layers.
///
/// The scope ends with the response's head. Statements that the body of a streamed response issues are outside of it.
#[derive(Debug, Clone)]
pub struct WatchLayer(Arc<Settings>);

#[derive(Debug, Clone)]
struct Settings {
    watch: Watch,
    requests: Option<Requests>,
    default_budget: Option<Budget>,
    budgets: HashMap<String, Budget>,
    server_timing: bool,
    request_id: HeaderName,
}

/// A number of statements, and the line that sets it.
type Budget = (u32, &'static Location<'static>);

impl WatchLayer {
    /// Creates a layer without budgets and without `Server-Timing`.
    pub fn new(watch: &Watch) -> Self {
        Self(Arc::new(Settings {
            watch: watch.clone(),
            requests: None,
            default_budget: None,
            budgets: HashMap::new(),
            server_timing: false,
            request_id: HeaderName::from_static("x-request-id"),
        }))
    }

    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Records each request for the pages of a [`Dashboard`](crate::Dashboard). Default: no recording.
    pub fn record(self, requests: &Requests) -> Self {
        self.with(|settings| settings.requests = Some(requests.clone()))
    }

    /// Sets the most statements that a request may issue, for routes without a budget of their own. A request with more
    /// is a finding. Default: no limit.
    #[track_caller]
    pub fn default_budget(self, statements: u32) -> Self {
        let budget = (statements, Location::caller());
        self.with(|settings| settings.default_budget = Some(budget))
    }

    /// Sets the most statements that a request of one route may issue. The route is the method and the full path with
    /// its parameters, such as `GET /users/{id}`. A handler can set its own with [`querywatch::set_budget`].
    #[track_caller]
    pub fn budget(self, route: impl Into<String>, statements: u32) -> Self {
        let budget = (statements, Location::caller());
        self.with(|settings| {
            settings.budgets.insert(route.into(), budget);
        })
    }

    /// Adds a `Server-Timing` header to each response, with the number of statements, the time of the database and the
    /// total time in milliseconds. Browsers show it in their developer tools. Clients can read it too. Default: off.
    pub fn server_timing(self, enabled: bool) -> Self {
        self.with(|settings| settings.server_timing = enabled)
    }

    /// Sets the header of the request from which the request id is read. Ids above 128 bytes are ignored. Default:
    /// `x-request-id`.
    pub fn request_id_header(self, name: HeaderName) -> Self {
        self.with(|settings| settings.request_id = name)
    }
}

impl<S> Layer<S> for WatchLayer {
    type Service = WatchService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WatchService { inner, settings: Arc::clone(&self.0) }
    }
}

/// The service of a [`WatchLayer`].
#[derive(Debug, Clone)]
pub struct WatchService<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S, B, R> Service<Request<B>> for WatchService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
    R: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The instance that is ready, not its clone, serves the request.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let settings = Arc::clone(&self.settings);
        Box::pin(async move {
            let began = Instant::now();
            let route = route(&request);
            let request_id = text(request.headers(), &settings.request_id, MAX_REQUEST_ID);
            let scope = settings.scope(&route, request_id.clone(), request.headers());
            let (mut result, report) = scope.run(async move { ready.call(request).await }).await;
            let took = began.elapsed();
            if let (true, Ok(response)) = (settings.server_timing, &mut result) {
                response.headers_mut().append(SERVER_TIMING, server_timing(&report, took));
            }
            if let Some(requests) = &settings.requests {
                let status = result.as_ref().ok().map(|response| response.status().as_u16());
                requests.record(Finished { route: &route, request_id, status, took, report: &report });
            }
            result
        })
    }
}

impl Settings {
    fn scope(&self, route: &str, request_id: Option<String>, headers: &HeaderMap) -> Scope {
        let mut scope = Scope::new(&self.watch, route);
        if let Some(id) = request_id {
            scope = scope.request_id(id);
        }
        let traceparent = text(headers, &HeaderName::from_static("traceparent"), TRACEPARENT);
        if let Some(trace) = traceparent.filter(|trace| trace.len() == TRACEPARENT) {
            scope = scope.traceparent(trace);
        }
        if let Some((statements, location)) = self.budgets.get(route).copied().or(self.default_budget) {
            scope = scope.budget_set_at(statements, location);
        }
        scope
    }
}

/// Returns the name of a request's route. Clients choose methods and paths, but the number of names is bounded by the
/// number of routes.
fn route<B>(request: &Request<B>) -> String {
    const METHODS: [Method; 7] =
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
    match request.extensions().get::<MatchedPath>() {
        Some(path) if METHODS.contains(request.method()) => format!("{} {}", request.method(), path.as_str()),
        Some(path) => format!("OTHER {}", path.as_str()),
        None => UNMATCHED.to_owned(),
    }
}

/// Returns a header of visible ASCII characters, up to a length in bytes.
fn text(headers: &HeaderMap, name: &HeaderName, max: usize) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (!value.is_empty() && value.len() <= max).then(|| value.to_owned())
}

fn server_timing(report: &Report, took: Duration) -> HeaderValue {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut value = String::new();
    // Writing to a `String` cannot fail.
    let _ = write!(
        value,
        "db;dur={:.3};desc=\"{} statements\", total;dur={:.3}",
        milliseconds(report.db_time),
        report.statements,
        milliseconds(took)
    );
    HeaderValue::try_from(value).unwrap_or_else(|_| HeaderValue::from_static("db"))
}
