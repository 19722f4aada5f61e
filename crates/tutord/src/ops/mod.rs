//! Operations: health, metrics, diagnosis and the dashboard.

pub(crate) mod background;
pub mod cache;
pub mod dashboard;
pub mod doctor;
pub mod health;
mod hints;
pub mod metrics;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod plans;
pub mod queries;
mod recent;
pub mod snapshot;

use crate::http::budgets::Budget;

/// The statement budget of the route outside of `/api`: one statement about the replicas.
pub const METRICS_BUDGETS: &[Budget] = &[("GET", "/metrics", 1)];

/// The statement budgets of the routes.
pub const BUDGETS: &[Budget] = &[
    ("GET", "/health", 0),
    ("GET", "/health/live", 0),
    ("GET", "/health/ready", 9),
    ("GET", "/admin/cache", 1),
    ("GET", "/admin/queries", 3),
];
