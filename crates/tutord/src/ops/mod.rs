//! What operators look at.

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

/// What each route may issue.
pub const BUDGETS: &[Budget] = &[
    ("GET", "/health", 0),
    ("GET", "/health/live", 0),
    ("GET", "/health/ready", 2),
    ("GET", "/admin/cache", 1),
    ("GET", "/admin/queries", 3),
];
