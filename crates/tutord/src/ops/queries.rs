//! `/api/admin/queries`: what the SQL statements cost, for admins.

use std::cmp::Reverse;

use axum::extract::State;
use querywatch::{Finding, ShapeSnapshot, SlowStatement, Stats, Totals};
use serde::{Deserialize, Serialize};
use tutord_store::store::ServerStatement;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::plans::Plan;
use crate::app::App;
use crate::auth::Admin;
use crate::error::ApiError;
use crate::http::pagination::integer;
use crate::http::query::Query;

/// Without `limit`, and the most.
const LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;

/// The routes of this file.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(queries))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct QueriesQuery {
    /// The most shapes, slow statements and findings: 1 to 100, 20 without it.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<String>,
    /// Which shapes come first, by the last five minutes and then since the start: those that took the most time (`total`, the
    /// default), were called most often (`calls`) or are slow at times (`p99`).
    #[serde(default)]
    #[param(inline)]
    sort: Sort,
}

#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Sort {
    #[default]
    Total,
    Calls,
    P99,
}

impl Sort {
    const fn of(self, stats: &Stats) -> u64 {
        match self {
            Self::Total => stats.total_us,
            Self::Calls => stats.calls,
            Self::P99 => stats.p99_us,
        }
    }
}

/// The statements of one process, since it started.
#[derive(Serialize, ToSchema)]
struct QueryReport {
    /// All statements together: `since_start`, and `window`, the last five minutes.
    #[schema(value_type = Object)]
    totals: Totals,
    /// Statements without their values, with counts, times in microseconds and the routes that issue them.
    shapes: Vec<ShapeReport>,
    /// The newest slow statements.
    #[schema(value_type = Vec<Object>)]
    slow: Vec<SlowStatement>,
    /// The newest findings: N+1, repeated queries, exceeded budgets.
    #[schema(value_type = Vec<Object>)]
    findings: Vec<Finding>,
    /// What the database server counts itself (`pg_stat_statements`), the longest total time first; null where it does not.
    server: Option<Vec<ServerStatement>>,
}

#[derive(Serialize, ToSchema)]
struct ShapeReport {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    shape: ShapeSnapshot,
    /// How the database carries it out; null unless it was slow.
    plan: Option<Plan>,
}

/// What the SQL statements of the process that answers cost, which were slow and why, and which requests issue too many.
#[utoipa::path(get, path = "/queries", tag = "admin", params(QueriesQuery),
    responses((status = 200, body = QueryReport), (status = 401), (status = 403), (status = 422)))]
async fn queries(
    State(app): State<App>,
    Admin(_admin): Admin,
    Query(query): Query<QueriesQuery>,
) -> Result<axum::Json<QueryReport>, ApiError> {
    let limit = integer("limit", query.limit.as_deref(), 1, MAX_LIMIT)?.unwrap_or(LIMIT);
    let server = app.store.server_statements(limit).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut shapes = app.watch.shapes();
    shapes.sort_by_key(|shape| Reverse((query.sort.of(&shape.window), query.sort.of(&shape.since_start))));
    let plans = &app.plans;
    let shapes = shapes.into_iter().take(limit).map(|shape| ShapeReport { plan: plans.plan(&shape.id), shape });
    let (mut slow, mut findings) = (app.watch.slow(), app.watch.findings());
    slow.truncate(limit);
    findings.truncate(limit);
    Ok(axum::Json(QueryReport { totals: app.watch.totals(), shapes: shapes.collect(), slow, findings, server }))
}
