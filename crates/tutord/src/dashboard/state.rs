//! The state of the dashboard.

use std::sync::Arc;

use axum::extract::FromRef;
use querywatch::Watch;
use readthrough::Cache;
use tutord_core::{Operations, Store};

use super::LivePages;
use crate::auth::AuthState;
use crate::background::Background;
use crate::http::requests::Requests;
use crate::http::route_table::RouteTable;
use crate::http::state::SharedState;
use crate::llm::LlmState;
use crate::mail::MailStats;

/// The state of the dashboard.
pub type DashboardState = SharedState<Dashboard>;

/// The parts of [`DashboardState`].
pub struct Dashboard {
    /// The state of the extractors.
    pub auth: AuthState,
    /// The database.
    pub operations: Arc<dyn Operations>,
    /// The cached store.
    pub store: Arc<dyn Store>,
    /// The cache in front of the database.
    pub cache: Cache,
    /// The observer of all SQL statements.
    pub watch: Watch,
    /// The pages about SQL statements.
    pub statement_pages: querywatch_axum::Dashboard,
    /// Counts and times of requests.
    pub requests: Requests,
    /// The model and the counts of its requests.
    pub llm: LlmState,
    /// Counts of mails.
    pub mail_stats: Arc<MailStats>,
    /// The table of routes, which includes the routes that wait for the model.
    pub routes: Arc<RouteTable>,
    /// The settings that pages show.
    pub settings: DashboardSettings,
    /// The background tasks.
    pub background: Background,
    /// The open live pages.
    pub live_pages: LivePages,
}

/// Settings that pages display.
#[derive(Debug, Clone, Copy)]
pub struct DashboardSettings {
    /// The threshold of slow statements in milliseconds.
    pub slow_query_threshold_ms: u64,
    /// The maximum wait for a database connection in milliseconds.
    pub acquire_timeout_ms: u64,
    /// Whether mails are written to files instead of being sent.
    pub writes_mails_to_files: bool,
}

impl FromRef<DashboardState> for AuthState {
    fn from_ref(state: &DashboardState) -> Self {
        state.auth.clone()
    }
}
