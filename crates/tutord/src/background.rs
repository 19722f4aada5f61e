//! Background tasks: they outlive their request, and shutdown waits for them.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The background tasks of the process; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Background {
    tasks: TaskTracker,
    /// Cancelled when the server begins to shut down.
    pub shutdown: CancellationToken,
}

impl Background {
    /// Spawns a task that shutdown waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Waits until all tasks have ended. Tasks that watch [`shutdown`](Self::shutdown) end soon after it is cancelled.
    pub async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs batches until one finds no more rows, or the server shuts down.
    pub(crate) async fn drain<F>(&self, what: &str, batch: impl Fn() -> F)
    where
        F: Future<Output = tutord_core::Result<usize>>,
    {
        while !self.shutdown.is_cancelled() {
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
}
