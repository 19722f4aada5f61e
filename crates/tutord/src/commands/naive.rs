//! `tutord demo --naive`: a list that is read as one should not, to see how that is found and what it costs.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::auth::Verified;
use crate::error::ApiError;
use crate::http::pagination::integer;
use crate::http::query::Query;

/// Where it is; it is no part of the API, and so not of its description.
pub(super) const PATH: &str = "/api/demo/conversations";
/// As on the route that does it well: without `limit`, and the most.
const LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;

pub(super) fn router() -> Router<App> {
    Router::new().route(PATH, get(conversations))
}

#[derive(Deserialize)]
struct LimitQuery {
    limit: Option<String>,
}

/// The student's conversations, newest activity first, with two statements for each.
async fn conversations(
    State(app): State<App>,
    Verified(identity): Verified,
    Query(query): Query<LimitQuery>,
) -> Result<axum::Json<Value>, ApiError> {
    let limit = integer("limit", query.limit.as_deref(), 1, MAX_LIMIT)?.unwrap_or(LIMIT);
    let conversations = app.store.naive_conversations(identity.user_id, limit).await?;
    Ok(axum::Json(json!({"conversations": conversations})))
}
