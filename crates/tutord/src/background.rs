//! Background tasks, which outlive their request and delay the shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
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

/// The cause of a round of a background task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A request notified the task.
    Notified,
    /// The interval has passed, or the task has just started.
    Interval,
}

impl Background {
    /// Spawns a task that the shutdown waits for.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Waits until all tasks have ended. Tasks that watch [`shutdown`](Self::shutdown) end soon after its cancellation.
    pub async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Spawns a task that runs `round` at the start, when it is notified, and at each interval, until shutdown.
    pub(crate) fn spawn_loop<F>(
        &self,
        interval: Duration,
        notified: Arc<Notify>,
        round: impl Fn(Background, Cause) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        let background = self.clone();
        self.spawn(async move {
            let mut ticks = tokio::time::interval(interval);
            loop {
                let cause = tokio::select! {
                    () = background.shutdown.cancelled() => return,
                    () = notified.notified() => Cause::Notified,
                    _ = ticks.tick() => Cause::Interval,
                };
                round(background.clone(), cause).await;
            }
        });
    }

    /// Runs batches until one is empty or the server shuts down.
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
