//! The mount points of the features: the prefix of their routes, with the facts about the routes.

use crate::http::route_table::{RouteFacts, RouteTable};
use crate::{admin, auth, chat, exercises, progress, telemetry, users};

/// The prefixes of the routes, with the facts about the routes below them.
///
/// `/api/v1/users`, `/api/progress/skills` and `/api/progress/` are the paths of an older release.
const MOUNTS: [(&str, RouteFacts); 11] = [
    ("/api/auth", auth::ROUTES),
    ("/api/users", users::ROUTES),
    ("/api/users", progress::USERS_ROUTES),
    ("/api/v1/users", users::ROUTES),
    ("/api/v1/users", progress::USERS_ROUTES),
    ("/api/chat", chat::ROUTES),
    ("/api/exercises", exercises::ROUTES),
    ("/api/progress", progress::ROUTES),
    ("/api/admin", admin::ROUTES),
    ("/api", telemetry::HEALTH_ROUTES),
    ("", telemetry::METRICS_ROUTES),
];

/// Returns the facts about all routes.
pub fn route_table() -> RouteTable {
    let mut table = RouteTable::default();
    for (prefix, facts) in &MOUNTS {
        table.mount(prefix, facts);
    }
    table
}
