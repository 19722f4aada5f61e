//! The state of this room.

use std::sync::Arc;

use axum::extract::FromRef;
use tutord_core::Store;

use crate::auth::AuthState;
use crate::http::response_cache::ResponseCache;
use crate::http::state::SharedState;

/// The state of the user routes.
pub type UsersState = SharedState<Users>;

/// The parts of [`UsersState`].
pub struct Users {
    /// The state of the extractors.
    pub auth: AuthState,
    /// The cached store.
    pub store: Arc<dyn Store>,
    /// Serialized responses of cached values.
    pub responses: ResponseCache,
    /// Set if a model is configured.
    pub has_model: bool,
}

impl FromRef<UsersState> for AuthState {
    fn from_ref(state: &UsersState) -> Self {
        state.auth.clone()
    }
}
