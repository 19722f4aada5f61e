//! The state of the admin routes.

use std::sync::Arc;

use axum::extract::FromRef;
use querywatch::Watch;
use readthrough::Cache;
use tutord_core::Operations;

use crate::auth::AuthState;
use crate::http::state::SharedState;
use crate::telemetry::plans::Plans;

/// The state of the admin routes.
pub type AdminState = SharedState<AdminContext>;

/// The parts of [`AdminState`].
pub struct AdminContext {
    /// The state of the extractors.
    pub auth: AuthState,
    /// The database.
    pub operations: Arc<dyn Operations>,
    /// The cache in front of the database.
    pub cache: Cache,
    /// The observer of all SQL statements.
    pub watch: Watch,
    /// Plans of slow statements.
    pub plans: Plans,
}

impl FromRef<AdminState> for AuthState {
    fn from_ref(state: &AdminState) -> Self {
        state.auth.clone()
    }
}
