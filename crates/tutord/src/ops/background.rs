//! Background work in bounded batches.

use crate::app::App;

/// Runs batches until one finds no more rows, or the server shuts down.
pub(crate) async fn drain<F>(app: &App, what: &str, batch: impl Fn() -> F)
where
    F: Future<Output = tutord_core::Result<usize>>,
{
    while !app.shutdown.is_cancelled() {
        match batch().await {
            Ok(0) => return,
            Ok(rows) => tracing::debug!(rows, what, "processed a batch"),
            Err(error) => {
                tracing::warn!(%error, what, "could not process a batch; retrying in the next round");
                return;
            }
        }
    }
}
