//! `tutord demo --naive`: a list with N+1 queries, to demonstrate their detection and their cost.

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

/// The path of the route. The route is not part of the API.
pub(super) const PATH: &str = "/api/demo/conversations";
/// The default of `limit`, as on the fixed route.
const DEFAULT_LIMIT: i64 = 20;
/// The maximum of `limit`, as on the fixed route.
const MAX_LIMIT: i64 = 100;

pub(super) fn router() -> Router<ChatState> {
    Router::new().route(PATH, get(conversations))
}

#[derive(Deserialize)]
struct NaiveListQuery {
    limit: Option<String>,
}

/// Returns the student's conversations, newest activity first. Issues two statements for each conversation.
async fn conversations(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Query(query): Query<NaiveListQuery>,
) -> Result<axum::Json<Value>, ApiError> {
    let limit = integer("limit", query.limit.as_deref(), 1, MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let conversations = state.store.naive_conversations(identity.user_id, limit).await?;
    Ok(axum::Json(json!({"conversations": conversations})))
}
