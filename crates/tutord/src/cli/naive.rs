//! `tutord demo --naive`: a list with N+1 queries, to demonstrate how they are detected and what they cost.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::Verified;
use crate::chat::ChatState;
use crate::http::error::ApiError;
use crate::http::pagination::integer;
use crate::http::query::Query;

/// The path of the route, which is not part of the API or its OpenAPI document.
pub(super) const PATH: &str = "/api/demo/conversations";
/// The default and the maximum of `limit`, as on the fixed route.
const LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;

pub(super) fn router() -> Router<ChatState> {
    Router::new().route(PATH, get(conversations))
}

#[derive(Deserialize)]
struct LimitQuery {
    limit: Option<String>,
}

/// Returns the student's conversations, newest activity first, with two statements for each.
async fn conversations(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Query(query): Query<LimitQuery>,
) -> Result<axum::Json<Value>, ApiError> {
    let limit = integer("limit", query.limit.as_deref(), 1, MAX_LIMIT)?.unwrap_or(LIMIT);
    let conversations = state.store.naive_conversations(identity.user_id, limit).await?;
    Ok(axum::Json(json!({"conversations": conversations})))
}
