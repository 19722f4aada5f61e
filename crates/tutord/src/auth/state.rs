//! The state of this room.

use std::sync::Arc;

use axum::extract::FromRef;
use tutord_core::Store;

use super::{AuthSettings, Mailer, Passwords};
use crate::http::state::{HttpState, SharedState};

/// The state of the auth routes, and of the extractors of all protected routes.
pub type AuthState = SharedState<Auth>;

/// The parts of [`AuthState`].
pub struct Auth {
    /// Client addresses, rate limits and admission.
    pub http: HttpState,
    /// The cached store.
    pub store: Arc<dyn Store>,
    /// Lifetimes of tokens.
    pub settings: AuthSettings,
    /// Set if cookies have the Secure attribute.
    pub secure_cookies: bool,
    /// The password hasher.
    pub passwords: Passwords,
    /// The queue of outgoing mails.
    pub mailer: Mailer,
}

impl FromRef<AuthState> for HttpState {
    fn from_ref(state: &AuthState) -> Self {
        state.http.clone()
    }
}
