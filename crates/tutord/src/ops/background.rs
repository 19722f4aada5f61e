//! Work that is done in bounded batches behind the requests.

use crate::app::App;

/// Runs batch after batch until one finds nothing more, or the server stops.
pub(crate) async fn drain<F>(app: &App, what: &str, batch: impl Fn() -> F)
where
    F: Future<Output = tutord_store::Result<usize>>,
{
    while !app.shutdown.is_cancelled() {
        match batch().await {
            Ok(0) => return,
            Ok(rows) => tracing::debug!(rows, what, "worked off a batch"),
            Err(error) => {
                tracing::warn!(%error, what, "could not work off a batch; the next round tries again");
                return;
            }
        }
    }
}
