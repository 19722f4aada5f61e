//! A request and its response in the log, the metrics and the watch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use querywatch::{RoundTrips, Scope};
use tracing::{Instrument as _, Span};

use super::error::reports_failure;
use super::etag::Conditions;
use super::requests::RouteCounts;
use super::route::{Route, UNMATCHED};
use super::state::HttpState;
use super::trace_context;

/// The record of a request, which becomes a log line, counts and headers of the response.
pub(super) struct Exchange {
    began: Instant,
    pub(super) route: Arc<Route>,
    span: Span,
    scope: Scope,
    conditions: Conditions,
}

impl Exchange {
    /// Begins the record of a request to a route.
    pub(super) fn begin(http: &HttpState, route: Arc<Route>, id: &str, request: &Request) -> Self {
        let began = Instant::now();
        let (method, path) = (route.method, &*route.path);
        #[cfg(not(feature = "otlp"))]
        let span = tracing::info_span!("request", request_id = id, method, route = path);
        #[cfg(feature = "otlp")]
        let span = tracing::info_span!(
            "request",
            request_id = id,
            method,
            route = path,
            otel.name = &*route.name,
            otel.kind = "server"
        );
        let mut scope = Scope::new(&http.watch, &route.name).request_id(id);
        if let Some(trace) = trace_context::traceparent(request.headers()) {
            scope = scope.traceparent(trace);
            #[cfg(feature = "otlp")]
            trace_context::continue_trace(&span, trace);
        }
        // Unknown methods have no budget.
        if let Some(statements) = route.budget {
            scope = scope.budget(statements);
        }
        Self { began, conditions: Conditions::of(request), route, span, scope }
    }

    /// Awaits the response within the span and the scope, and records it.
    pub(super) async fn run(self, http: &HttpState, answer: impl Future<Output = Response>) -> Response {
        let Self { began, route, span, scope, conditions } = self;
        let (mut response, report) = scope.run(answer.instrument(span.clone())).await;
        conditions.apply(&mut response);
        let (status, statements, ended) = (response.status(), report.statements, Instant::now());
        let RoundTrips { total, sequential: round_trips, .. } = report.round_trips;
        if status == StatusCode::METHOD_NOT_ALLOWED {
            // Count rejected methods together, not as routes of their own.
            http.requests.count(UNMATCHED, &RouteCounts::default(), status, began, ended);
        } else {
            http.requests.count(&route.name, &route.counts, status, began, ended);
        }
        #[cfg(feature = "otlp")]
        trace_context::record_status(&span, status);
        let (latency_ms, is_failed) = (milliseconds(ended - began), reports_failure(&response));
        let status = status.as_u16();
        span.in_scope(|| {
            if is_failed {
                tracing::error!(status, latency_ms, statements, round_trips, "answered");
            } else {
                tracing::info!(status, latency_ms, statements, round_trips, "answered");
            }
        });
        if http.settings.server_timing {
            let db = milliseconds(report.db_time);
            let timing = format!(
                "total;dur={latency_ms}, db;dur={db}, db_queries;desc=\"{statements}\", \
                 db_round_trips;desc=\"{total}\", db_sequential;desc=\"{round_trips}\""
            );
            if let Ok(value) = HeaderValue::from_str(&timing) {
                response.headers_mut().insert(HeaderName::from_static("server-timing"), value);
            }
        }
        response
    }
}

/// Rounds to microseconds.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
