//! Background removal of deleted and expired rows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tutord_core::{Operations, Timestamp};

use crate::background::{Background, Cause};

/// The maximum number of rows of a table that one transaction removes; it holds its locks for about ten milliseconds.
const BATCH: i64 = 5_000;
/// The interval at which expired sessions and tokens are removed.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The retention of expired tokens, for which clients get `TOKEN_EXPIRED`.
const EXPIRED_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Starts the task, which first removes what a stopped process left, and ends at shutdown.
pub(crate) fn spawn(background: &Background, operations: Arc<dyn Operations>, deleted: Arc<Notify>) {
    background.spawn_loop(INTERVAL, deleted, move |background, cause| {
        let operations = Arc::clone(&operations);
        async move {
            if cause == Cause::Interval {
                let before = Timestamp::now() - EXPIRED_RETENTION;
                let expired = || operations.purge_expired(before, BATCH);
                background.drain("expired sessions, tokens and idempotency keys", expired).await;
            }
            background.drain("deleted conversations", || operations.purge_conversations(BATCH)).await;
        }
    });
}
