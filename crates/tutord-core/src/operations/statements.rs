//! The server's statistics of statements.

use serde::Serialize;

/// Statistics of a statement of all users of the database, since the last reset of the server's statistics.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerStatement {
    /// The text, with `$1`, `$2`, … for values.
    pub sql: String,
    /// The number of calls.
    pub calls: i64,
    /// The total time of all calls, in milliseconds.
    pub total_ms: f64,
    /// The mean time of a call, in milliseconds.
    pub mean_ms: f64,
    /// The longest time of a call, in milliseconds.
    pub max_ms: f64,
    /// The number of returned or changed rows.
    pub rows: i64,
}
