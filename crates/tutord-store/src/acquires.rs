//! How long callers wait for a connection of a pool.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::store::PoolStatus;

/// Counts who asked for a connection, and how long they waited together.
#[derive(Debug, Default)]
pub(crate) struct Acquires {
    count: AtomicU64,
    us: AtomicU64,
}

impl Acquires {
    /// Counts one who waits for this future.
    pub(crate) async fn timed<T>(&self, acquire: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let acquired = acquire.await;
        let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.us.fetch_add(us, Ordering::Relaxed);
        acquired
    }

    /// How the pool stands whose callers are counted here.
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
