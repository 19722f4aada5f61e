//! Overflow connections: opened under load, and closed afterwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::Status;

/// The time since the last overflow after which a connection is closed. Opening one costs PostgreSQL a process and
/// several round trips, much more than a request.
const CALM: Duration = Duration::from_secs(5);

/// Decides which returned connections are closed.
pub(super) struct Overflow {
    size: usize,
    began: Instant,
    /// The last time at which more than `size` connections were in use, in milliseconds since `began`.
    needed_ms: AtomicU64,
}

impl Overflow {
    /// Creates the state for a pool of `size` connections without load.
    pub(super) fn new(size: usize) -> Self {
        Self { size, began: Instant::now(), needed_ms: AtomicU64::new(0) }
    }

    /// Records the status of the pool after a connection was taken.
    pub(super) fn taken(&self, pool: &Status) {
        if pool.size.saturating_sub(pool.available) > self.size {
            self.needed_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Returns `true` if a returned connection must be closed.
    pub(super) fn closes(&self, pool: &Status) -> bool {
        let calm =
            || Duration::from_millis(self.now_ms().saturating_sub(self.needed_ms.load(Ordering::Relaxed))) > CALM;
        pool.size > self.size && pool.waiting == 0 && calm()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(size: usize, available: usize, waiting: usize) -> Status {
        Status { max_size: 20, size, available, waiting }
    }

    #[test]
    fn what_a_peak_opened_is_closed_when_it_is_over() {
        let mut overflow = Overflow::new(10);
        overflow.taken(&pool(14, 3, 0));
        assert!(!overflow.closes(&pool(14, 10, 0)), "the peak may come again");
        // As if it had been long ago.
        overflow.began -= CALM + Duration::from_secs(1);
        overflow.taken(&pool(14, 4, 0));
        assert!(overflow.closes(&pool(14, 10, 0)), "ten are enough");
        assert!(!overflow.closes(&pool(14, 0, 1)), "somebody waits for it");
        assert!(!overflow.closes(&pool(10, 9, 0)), "it is one of those that stay");
        overflow.taken(&pool(14, 3, 0));
        assert!(!overflow.closes(&pool(14, 10, 0)), "eleven were needed again");
    }
}
