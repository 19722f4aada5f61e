//! A value that is computed at most once a second for any number of callers.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// The time to live of a value.
const TTL: Duration = Duration::from_secs(1);

/// The latest result of a computation, shared by all callers.
#[derive(Debug)]
pub struct OneSecondCache<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for OneSecondCache<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> OneSecondCache<T> {
    /// Returns the latest value, or computes a new one if it is older than a second. Concurrent callers share one
    /// computation.
    pub async fn get_or_compute(&self, compute: impl Future<Output = T>) -> T {
        let mut newest = self.0.lock().await;
        if let Some((at, value)) = &*newest
            && at.elapsed() < TTL
        {
            return value.clone();
        }
        let value = compute.await;
        *newest = Some((Instant::now(), value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn concurrent_callers_share_one_computation() {
        let (snapshot, computed) = (OneSecondCache::default(), AtomicU32::new(0));
        let compute = || async {
            tokio::task::yield_now().await;
            computed.fetch_add(1, Ordering::Relaxed)
        };
        let values = futures_util::future::join_all((0..50).map(|_| snapshot.get_or_compute(compute()))).await;
        assert_eq!(values, vec![0; 50]);
    }
}
