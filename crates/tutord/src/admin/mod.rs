//! The admin routes: statistics of the cache and of SQL statements.

pub mod cache;
pub mod queries;
mod state;

use crate::http::openapi::Routes;
use crate::http::route_table::RouteFacts;

pub use state::{AdminContext, AdminState};

/// The facts about the routes of this feature.
pub const ROUTES: RouteFacts = RouteFacts::new(&[("GET", "/cache", 1), ("GET", "/queries", 3)]);

/// Returns the routes of this feature.
pub fn router() -> Routes<AdminState> {
    [cache::router(), queries::router()].concat()
}
