//! Background removal of deleted and expired rows.

use std::time::Duration;

use tutord_core::Timestamp;

use crate::app::App;
use crate::ops::background::drain;

/// The maximum number of rows of a table that one transaction removes; it holds its locks for about ten milliseconds.
const BATCH: i64 = 5_000;
/// The interval at which expired sessions and tokens are removed.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The retention of expired tokens, for which clients get `TOKEN_EXPIRED`.
const KEPT_EXPIRED: Duration = Duration::from_secs(24 * 60 * 60);

/// Starts the task, which first removes what a stopped process left, and ends at shutdown.
pub(crate) fn spawn(app: &App) {
    let app = app.clone();
    app.tasks.clone().spawn(async move {
        let mut interval = tokio::time::interval(INTERVAL);
        loop {
            tokio::select! {
                () = app.shutdown.cancelled() => return,
                () = app.purge.notified() => {}
                _ = interval.tick() => {
                    let before = Timestamp::now() - KEPT_EXPIRED;
                    drain(&app, "expired sessions, tokens and idempotency keys", || {
                        app.operations.purge_expired(before, BATCH)
                    })
                    .await;
                }
            }
            drain(&app, "deleted conversations", || app.operations.purge_conversations(BATCH)).await;
        }
    });
}
