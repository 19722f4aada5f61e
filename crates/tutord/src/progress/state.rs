//! The state of this room.

use std::sync::Arc;

use axum::extract::FromRef;
use tokio::sync::Notify;
use tutord_core::Store;

use crate::auth::AuthState;
use crate::http::rate_limit::RateLimits;
use crate::http::state::SharedState;

/// The state of the progress routes.
pub type ProgressState = SharedState<Progress>;

/// The parts of [`ProgressState`].
pub struct Progress {
    /// The state of the extractors.
    pub auth: AuthState,
    /// The cached store.
    pub store: Arc<dyn Store>,
    /// The rate limiter.
    pub limits: Arc<RateLimits>,
    /// Notified when leaderboard entries have changed.
    pub leaderboards: Arc<Notify>,
}

impl FromRef<ProgressState> for AuthState {
    fn from_ref(state: &ProgressState) -> Self {
        state.auth.clone()
    }
}
