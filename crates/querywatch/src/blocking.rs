//! Connections of diesel-async to SQLite, which run on blocking threads.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use diesel_async::sync_connection_wrapper::SpawnBlocking;

use crate::scope::in_current_scope_sync;

/// Runs the statements of a `SyncConnectionWrapper<C, BlockingInScope>` on tokio's blocking threads, in the scope of the
/// caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlockingInScope;

impl SpawnBlocking for BlockingInScope {
    fn spawn_blocking<'a, R: Send + 'static>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> Pin<Box<dyn Future<Output = Result<R, Box<dyn Error + Send + Sync + 'static>>> + Send + 'a>> {
        let task = tokio::task::spawn_blocking(in_current_scope_sync(task));
        Box::pin(async { Ok(task.await?) })
    }

    fn get_runtime() -> Self {
        Self
    }
}
