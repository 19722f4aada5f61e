//! Statistics of waits for pool connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tutord_core::operations::PoolStatus;

/// Counts the acquisitions of connections and their total wait.
#[derive(Debug, Default)]
pub(crate) struct PoolMetrics {
    count: AtomicU64,
    us: AtomicU64,
}

impl PoolMetrics {
    /// Counts a caller that waits for this future.
    pub(crate) async fn timed<T>(&self, acquire: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let acquired = acquire.await;
        let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.us.fetch_add(us, Ordering::Relaxed);
        acquired
    }

    /// Returns the status of the pool whose callers are counted.
    pub(crate) fn status(&self, pool: &deadpool::Status) -> PoolStatus {
        PoolStatus {
            max: pool.max_size,
            open: pool.size,
            idle: pool.available,
            waiting: pool.waiting,
            acquires: self.count.load(Ordering::Relaxed),
            acquire_us: self.us.load(Ordering::Relaxed),
        }
    }
}
