//! The routes of `/api/chat`.

use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tutord_core::model::Order;
use tutord_core::{List, PageRequest};
use utoipa_axum::routes;

use super::dto::{
    ConversationItem, ConversationList, ConversationPageResponse, ConversationResponse, DeletedResponse,
    NewConversationRequest, RenameRequest, ReplyResponse, SendRequest,
};
use super::exchange::{self, Exchange};
use super::state::ChatState;
use super::{service, stream};
use crate::auth::Verified;
use crate::http::error::ApiError;
use crate::http::json::Json;
use crate::http::openapi::Routes;
use crate::http::pagination::{Bounds, PageParams};
use crate::http::path::Id;
use crate::http::query::Query;
use crate::http::route_table::{Budget, RouteFacts};

/// The statement budget of this route, including authentication. Only a page beyond the list's end uses the last
/// statement. See `docs/ARCHITECTURE.md`.
pub const LIST_BUDGET: u32 = 3;
/// The statement budget of this route, including authentication.
pub const PAGE_BUDGET: u32 = 3;

/// The statement budget of requests that create, rename or delete a conversation, including authentication; one
/// statement looks up the exercise of a conversation.
pub const CONVERSATION_BUDGET: u32 = 3;
/// The statement budget of a message with its reply, including authentication: about 12, one more for a new
/// conversation, two for an idempotency key, and three to find the reply that a repeated request has stored meanwhile.
pub const SEND_BUDGET: u32 = 18;

pub(crate) const CONVERSATIONS: Bounds = Bounds::new(20, 100);
pub(crate) const MESSAGES: Bounds = Bounds::new(50, 200);

/// The statement budgets of the routes.
const BUDGETS: &[Budget] = &[
    ("GET", "/conversations", LIST_BUDGET),
    ("POST", "/conversations", CONVERSATION_BUDGET),
    ("GET", "/conversations/{id}", PAGE_BUDGET),
    ("PATCH", "/conversations/{id}", CONVERSATION_BUDGET),
    ("DELETE", "/conversations/{id}", CONVERSATION_BUDGET),
    ("POST", "/conversations/{id}/retry", SEND_BUDGET),
    ("POST", "/message", SEND_BUDGET),
    ("POST", "/stream", SEND_BUDGET),
];

/// The facts about the routes of this feature.
pub const ROUTES: RouteFacts = RouteFacts {
    budgets: BUDGETS,
    awaits_model: &["/message", "/conversations/{id}/retry"],
    pages: &[("/conversations", CONVERSATIONS), ("/conversations/{id}", MESSAGES)],
};

/// The routes of this feature.
pub fn router() -> Routes<ChatState> {
    vec![routes!(list, create), routes!(read, rename, delete), routes!(retry), routes!(send), routes!(send_streaming)]
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct OrderQuery {
    /// `asc` (oldest first, the default) or `desc`.
    #[serde(default)]
    #[param(inline)]
    order: Order,
}

/// Lists the student's conversations, newest activity first.
#[utoipa::path(get, path = "/conversations", tag = "chat", params(PageParams),
    responses((status = 200, body = ConversationList), (status = 401), (status = 403), (status = 422)))]
async fn list(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Query(page): Query<PageParams>,
) -> Result<Response, ApiError> {
    let request = page.parse(CONVERSATIONS, List::Conversations)?;
    let found = state.store.list_conversations(identity.user_id, &request).await?;
    // The cache has one value for each position and size of a page.
    state.responses.json(found, 0, |found| ConversationList::new(found, &request))
}

/// Creates a conversation without messages.
#[utoipa::path(post, path = "/conversations", tag = "chat", request_body = NewConversationRequest,
    responses((status = 201, body = ConversationResponse), (status = 401), (status = 403), (status = 404), (status = 422)))]
async fn create(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Json(request): Json<NewConversationRequest>,
) -> Result<Response, ApiError> {
    let conversation = service::create(&state, identity.user_id, request).await?;
    let body = ConversationResponse { conversation: ConversationItem::from(conversation) };
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

/// Returns a conversation and a page of its messages.
#[utoipa::path(get, path = "/conversations/{id}", tag = "chat", params(("id" = i64, Path), PageParams, OrderQuery),
    responses((status = 200, body = ConversationPageResponse), (status = 401), (status = 403), (status = 404), (status = 422)))]
async fn read(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Id(id): Id,
    Query(page): Query<PageParams>,
    Query(OrderQuery { order }): Query<OrderQuery>,
) -> Result<Response, ApiError> {
    let list = match order {
        Order::Asc => List::MessagesAscending,
        Order::Desc => List::MessagesDescending,
    };
    let request: PageRequest = page.parse(MESSAGES, list)?;
    let found = state.store.conversation_page(identity.user_id, id, order, &request).await?;
    let found = found.ok_or_else(service::no_conversation)?;
    state.responses.json(found, 0, |found| ConversationPageResponse::new(found.conversation, found.messages, &request))
}

/// Renames a conversation.
#[utoipa::path(patch, path = "/conversations/{id}", tag = "chat", params(("id" = i64, Path)), request_body = RenameRequest,
    responses((status = 200, body = ConversationResponse), (status = 401), (status = 403), (status = 404), (status = 422)))]
async fn rename(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Id(id): Id,
    Json(request): Json<RenameRequest>,
) -> Result<axum::Json<ConversationResponse>, ApiError> {
    let renamed = state.store.rename_conversation(identity.user_id, id, &request.title).await?;
    let conversation = ConversationItem::from(renamed.ok_or_else(service::no_conversation)?);
    Ok(axum::Json(ConversationResponse { conversation }))
}

/// Deletes a conversation with its messages.
#[utoipa::path(delete, path = "/conversations/{id}", tag = "chat", params(("id" = i64, Path)),
    responses((status = 200, body = DeletedResponse), (status = 401), (status = 403), (status = 404)))]
async fn delete(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Id(id): Id,
) -> Result<axum::Json<DeletedResponse>, ApiError> {
    service::delete(&state, identity.user_id, id).await?;
    Ok(axum::Json(DeletedResponse { message: "Conversation deleted.", conversation_id: id }))
}

/// Requests a reply to the newest message if it has none, or only an incomplete one, which the new reply replaces.
/// Returns a complete reply unchanged. With `Accept: text/event-stream` the reply streams.
#[utoipa::path(post, path = "/conversations/{id}/retry", tag = "chat", params(("id" = i64, Path)),
    responses((status = 200, content((ReplyResponse = "application/json"), (String = "text/event-stream"))), (status = 401),
        (status = 403), (status = 404),
        (status = 409, description = "the conversation has no message to reply to"), (status = 429), (status = 503)))]
async fn retry(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let exchange = exchange::resume(&state, &identity, id).await?;
    if accepts_events(&headers) { respond_streaming(&state, exchange) } else { respond(&state, exchange).await }
}

/// Sends a message and waits for the tutor's complete reply. A client that disconnects finds the reply later.
#[utoipa::path(post, path = "/message", tag = "chat", request_body = SendRequest,
    responses((status = 200, body = ReplyResponse), (status = 401), (status = 403), (status = 404), (status = 422), (status = 429),
        (status = 503, description = "the message is stored; details name it")))]
async fn send(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Json(request): Json<SendRequest>,
) -> Result<Response, ApiError> {
    respond(&state, exchange::begin(&state, &identity, request).await?).await
}

/// Sends a message and streams the tutor's reply as server-sent events: `start`, `delta`…, then `done` or `error`.
#[utoipa::path(post, path = "/stream", tag = "chat", request_body = SendRequest,
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 401), (status = 403), (status = 404), (status = 422), (status = 429), (status = 503)))]
async fn send_streaming(
    State(state): State<ChatState>,
    Verified(identity): Verified,
    Json(request): Json<SendRequest>,
) -> Result<Response, ApiError> {
    respond_streaming(&state, exchange::begin(&state, &identity, request).await?)
}

async fn respond(state: &ChatState, exchange: Exchange) -> Result<Response, ApiError> {
    let (question_id, reply) = exchange.reply(state).await?;
    Ok(axum::Json(ReplyResponse::new(question_id, reply)).into_response())
}

fn respond_streaming(state: &ChatState, exchange: Exchange) -> Result<Response, ApiError> {
    match &exchange {
        Exchange::Open(question) if state.llm.provider.is_none() => {
            Err(question.explain(ApiError::llm_not_configured()))
        }
        _ => Ok(stream::respond(state, exchange).into_response()),
    }
}

/// Returns `true` if a client prefers server-sent events.
fn accepts_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    accepted.split(',').filter_map(|range| range.split(';').next()).any(|kind| kind.trim() == "text/event-stream")
}
