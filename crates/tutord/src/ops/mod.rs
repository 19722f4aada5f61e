//! What operators look at.

pub(crate) mod background;
pub mod cache;
pub mod doctor;
pub mod health;
mod hints;
pub mod metrics;
pub mod plans;
pub mod queries;

use crate::http::budgets::Budget;

/// What each route may issue.
pub const BUDGETS: &[Budget] = &[
    ("GET", "/health", 0),
    ("GET", "/health/live", 0),
    ("GET", "/health/ready", 2),
    ("GET", "/admin/cache", 1),
    ("GET", "/admin/queries", 1),
];
