//! Loads frequently read values into the cache when a process starts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use readthrough::Cache;

use super::CachedStore;
use crate::background::Background;

/// The timeout of warming. The process serves requests meanwhile.
const BOUND: Duration = Duration::from_secs(2);

/// Starts the task that warms the cache.
pub(crate) fn spawn(background: &Background, cache: Cache, store: Arc<CachedStore>) {
    background.spawn(async move {
        let began = Instant::now();
        let warming = async {
            cache.until_connected().await;
            store.warm().await
        };
        match tokio::time::timeout(BOUND, warming).await {
            Ok(Ok(0)) => {}
            Ok(Ok(values)) => tracing::info!(values, milliseconds = began.elapsed().as_millis(), "the cache is warm"),
            Ok(Err(error)) => tracing::warn!(%error, "could not warm the cache; the first readers load the values"),
            Err(_) => tracing::warn!("could not warm the cache within {BOUND:?}; the first readers load the values"),
        }
    });
}
