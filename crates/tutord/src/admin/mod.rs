//! The admin routes: statistics of the cache and of SQL statements.

pub mod cache;
pub mod queries;
mod state;

use utoipa_axum::router::OpenApiRouter;

use crate::http::route_table::RouteFacts;

pub use state::{AdminContext, AdminState};

/// The facts about the routes of this feature.
pub const ROUTES: RouteFacts = RouteFacts::new(&[("GET", "/cache", 1), ("GET", "/queries", 3)]);

/// Returns the routes of this feature.
pub fn router() -> OpenApiRouter<AdminState> {
    cache::router().merge(queries::router())
}
