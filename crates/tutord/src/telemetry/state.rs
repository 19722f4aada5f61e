//! The state of the health checks and of `/metrics`.

use std::sync::Arc;

use axum::body::Bytes;
use readthrough::Cache;
use tokio_util::sync::CancellationToken;
use tutord_core::Operations;

use super::health::Readiness;
use super::one_second_cache::OneSecondCache;
use crate::http::error::ApiError;
use crate::http::state::{HttpState, SharedState};
use crate::llm::LlmState;
use crate::mail::MailStats;

/// The state of the health checks and of `/metrics`.
pub type TelemetryState = SharedState<Telemetry>;

/// The parts of [`TelemetryState`].
pub struct Telemetry {
    /// Requests, connections and statements.
    pub http: HttpState,
    /// The database.
    pub operations: Arc<dyn Operations>,
    /// The cache in front of the database.
    pub cache: Cache,
    /// The model and the counts of its requests.
    pub llm: LlmState,
    /// Counts of mails.
    pub mail_stats: Arc<MailStats>,
    /// Cancelled when the server begins to shut down.
    pub shutdown: CancellationToken,
    /// The readiness of the process, at most a second old.
    pub readiness: OneSecondCache<Readiness>,
    /// The response of `/metrics`, at most a second old.
    pub metrics: OneSecondCache<Result<Bytes, ApiError>>,
}
