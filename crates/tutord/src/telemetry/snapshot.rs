//! A value that is computed at most once a second, however many callers there are.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// The lifetime of a value.
const LIFETIME: Duration = Duration::from_secs(1);

/// The latest value of a computation, shared by all callers.
#[derive(Debug)]
pub struct Snapshot<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Snapshot<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Snapshot<T> {
    /// Returns the value, computed now unless it is less than a second old. Concurrent callers wait for one
    /// computation.
    pub async fn get_or_compute(&self, compute: impl Future<Output = T>) -> T {
        let mut newest = self.0.lock().await;
        if let Some((at, value)) = &*newest
            && at.elapsed() < LIFETIME
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
        let (snapshot, computed) = (Snapshot::default(), AtomicU32::new(0));
        let compute = || async {
            tokio::task::yield_now().await;
            computed.fetch_add(1, Ordering::Relaxed)
        };
        let values = futures_util::future::join_all((0..50).map(|_| snapshot.get_or_compute(compute()))).await;
        assert_eq!(values, vec![0; 50]);
    }
}
