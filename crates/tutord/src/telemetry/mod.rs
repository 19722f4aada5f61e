//! Telemetry: health checks, metrics, traces, and plans of slow statements.

pub mod health;
mod hints;
pub mod metrics;
pub mod one_second_cache;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod plans;
mod state;
mod watch;

use axum::Router;
use axum::routing::get;
use utoipa_axum::routes;

use crate::http::openapi::Routes;
use crate::http::route_table::RouteFacts;

pub use state::{Telemetry, TelemetryState};
pub use watch::WatchSettings;

/// The facts about the routes below `/api`.
pub const HEALTH_ROUTES: RouteFacts =
    RouteFacts::new(&[("GET", "/health", 0), ("GET", "/health/live", 0), ("GET", "/health/ready", 9)]);

/// The facts about the route outside of `/api`, which issues one statement to read the replicas.
pub const METRICS_ROUTES: RouteFacts = RouteFacts::new(&[("GET", "/metrics", 1)]);

/// Returns the route `/metrics`.
pub fn metrics_router() -> Routes<TelemetryState> {
    vec![routes!(metrics::metrics)]
}

/// Returns the health routes without the prefix `/api`, at the paths that orchestrators and load balancers use by
/// default.
pub fn probes() -> Router<TelemetryState> {
    Router::new()
        .route("/health", get(health::health))
        .route("/live", get(health::live))
        .route("/ready", get(health::ready))
}
