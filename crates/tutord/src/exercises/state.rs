//! The state of this room.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::Notify;
use tutord_core::Store;

use crate::auth::AuthState;
use crate::http::rate_limit::RateLimits;
use crate::http::response_cache::ResponseCache;
use crate::http::state::SharedState;
use crate::llm::LlmState;

/// The state of the exercise routes.
pub type ExercisesState = SharedState<Exercises>;

/// The parts of [`ExercisesState`].
pub struct Exercises {
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
    /// Notified when leaderboard entries have changed.
    pub leaderboards: Arc<Notify>,
}

impl FromRef<ExercisesState> for AuthState {
    fn from_ref(state: &ExercisesState) -> Self {
        state.auth.clone()
    }
}
