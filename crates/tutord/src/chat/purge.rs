//! Removes in the background what was deleted or has expired.

use std::time::Duration;

use tutord_store::Timestamp;

use crate::app::App;
use crate::ops::background::drain;

/// The most rows of a table that one transaction removes: it holds its locks for some ten milliseconds.
const BATCH: i64 = 5_000;
/// How often expired sessions and tokens are looked for.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long expired tokens are kept, so that a client is told that its token expired.
const KEPT_EXPIRED: Duration = Duration::from_secs(24 * 60 * 60);

/// Starts the task. It begins with what a stopped process left behind, and ends at shutdown.
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
                        app.store.purge_expired(before, BATCH)
                    })
                    .await;
                }
            }
            drain(&app, "deleted conversations", || app.store.purge_conversations(BATCH)).await;
        }
    });
}
