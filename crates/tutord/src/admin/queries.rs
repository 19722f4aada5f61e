//! The route `/api/admin/queries`: statistics of SQL statements, for admins.

use std::cmp::Reverse;

use axum::extract::State;
use querywatch::{Finding, ShapeSnapshot, SlowStatement, Stats, Totals};
use serde::{Deserialize, Serialize};
use tutord_core::operations::ServerStatement;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::state::AdminState;
use crate::auth::Admin;
use crate::http::error::ApiError;
use crate::http::openapi::Routes;
use crate::http::pagination::integer;
use crate::http::query::Query;
use crate::telemetry::plans::Plan;

/// The default of `limit`.
const DEFAULT_LIMIT: i64 = 20;
/// The maximum of `limit`.
const MAX_LIMIT: i64 = 100;

/// Returns the routes of this module.
pub fn router() -> Routes<AdminState> {
    vec![routes!(queries)]
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct QueriesQuery {
    /// The maximum number of shapes, slow statements and findings: 1 to 100, default 20.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// The order of shapes: total time (`total`, the default), number of calls (`calls`) or 99th percentile (`p99`).
    /// Shapes are compared by the last five minutes, and then since the start.
    #[serde(default)]
    #[param(inline)]
    sort: ShapeOrder,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ShapeOrder {
    #[default]
    Total,
    Calls,
    P99,
}

impl ShapeOrder {
    const fn of(self, stats: &Stats) -> u64 {
        match self {
            Self::Total => stats.total_us,
            Self::Calls => stats.calls,
            Self::P99 => stats.p99_us,
        }
    }
}

/// The statements of a process since its start.
#[derive(Serialize, ToSchema)]
struct QueryReport {
    /// All statements together: `since_start`, and `window`, the last five minutes.
    #[schema(value_type = Object)]
    totals: Totals,
    /// Statements without their values, with counts, durations in microseconds, and the routes that issue them.
    shapes: Vec<ShapeReport>,
    /// The newest slow statements.
    #[schema(value_type = Vec<Object>)]
    slow: Vec<SlowStatement>,
    /// The newest findings: N+1, repeated queries, exceeded budgets.
    #[schema(value_type = Vec<Object>)]
    findings: Vec<Finding>,
    /// The statistics of the database server (`pg_stat_statements`), longest total time first; null if unavailable.
    server: Option<Vec<ServerStatement>>,
}

#[derive(Serialize, ToSchema)]
struct ShapeReport {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    shape: ShapeSnapshot,
    /// The plan of the statement; null unless it was slow.
    plan: Option<Plan>,
}

/// Returns statistics of the SQL statements of this process, with the plans of slow statements and the requests that
/// issue too many statements.
#[utoipa::path(get, path = "/queries", tag = "admin", params(QueriesQuery),
    responses((status = 200, body = QueryReport), (status = 401), (status = 403), (status = 422)))]
async fn queries(
    State(state): State<AdminState>,
    Admin(_admin): Admin,
    Query(query): Query<QueriesQuery>,
) -> Result<axum::Json<QueryReport>, ApiError> {
    let limit = integer("limit", query.limit.as_deref(), 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let server = state.operations.server_statements(limit).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut shapes = state.watch.shapes();
    shapes.sort_by_key(|shape| Reverse((query.sort.of(&shape.window), query.sort.of(&shape.since_start))));
    let plans = &state.plans;
    let shapes = shapes.into_iter().take(limit).map(|shape| ShapeReport { plan: plans.plan(&shape.id), shape });
    let (mut slow, mut findings) = (state.watch.slow_statements(), state.watch.findings());
    slow.truncate(limit);
    findings.truncate(limit);
    Ok(axum::Json(QueryReport { totals: state.watch.totals(), shapes: shapes.collect(), slow, findings, server }))
}
