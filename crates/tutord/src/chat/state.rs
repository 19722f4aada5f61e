//! The state of this room.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tutord_core::Store;

use super::InProgress;
use crate::auth::AuthState;
use crate::background::Background;
use crate::http::rate_limit::RateLimits;
use crate::http::response_cache::ResponseCache;
use crate::http::state::SharedState;
use crate::llm::LlmState;

/// The state of the chat routes.
pub type ChatState = SharedState<Chat>;

/// The parts of [`ChatState`].
pub struct Chat {
    /// The state of the extractors.
    pub auth: AuthState,
    /// The cached store.
    pub store: Arc<dyn Store>,
    /// Serialized responses of cached values.
    pub responses: ResponseCache,
    /// The rate limiter.
    pub limits: Arc<RateLimits>,
    /// The model.
    pub llm: LlmState,
    /// Tasks that outlive their request.
    pub background: Background,
    /// Cancelled when the time of streams to complete by themselves is over.
    pub streams_end: CancellationToken,
    /// The replies that this process is generating.
    pub in_progress: InProgress,
    /// Notified when a deleted conversation is ready to be purged.
    pub purge: Arc<Notify>,
}

impl FromRef<ChatState> for AuthState {
    fn from_ref(state: &ChatState) -> Self {
        state.auth.clone()
    }
}
