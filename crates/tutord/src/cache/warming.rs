//! Reads ahead what will be asked for first, when a process starts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::CachedStore;
use crate::app::App;

/// How long a process warms, at most. It serves meanwhile.
const BOUND: Duration = Duration::from_secs(2);

/// Starts the task.
pub(crate) fn spawn(app: &App, store: Arc<CachedStore>) {
    let cache = app.cache.clone();
    app.tasks.spawn(async move {
        let began = Instant::now();
        let warming = async {
            cache.until_connected().await;
            store.warm().await
        };
        match tokio::time::timeout(BOUND, warming).await {
            Ok(Ok(0)) => {}
            Ok(Ok(values)) => tracing::info!(values, milliseconds = began.elapsed().as_millis(), "the cache is warm"),
            Ok(Err(error)) => tracing::warn!(%error, "the cache is not warm: the first readers load"),
            Err(_) => tracing::warn!("the cache is not warm after {BOUND:?}: the first readers load"),
        }
    });
}
