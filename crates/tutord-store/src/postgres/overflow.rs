//! Connections above the pool's size: opened for a peak, and closed after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool::Status;

/// How long ago more connections than the pool's size must have been in use before one of them is closed. Opening one
/// costs PostgreSQL a process and several round trips: much more than a request.
const CALM: Duration = Duration::from_secs(5);

/// Decides which connections are closed when they come back.
pub(super) struct Overflow {
    size: usize,
    began: Instant,
    /// Milliseconds from `began` to when more than `size` were last in use.
    needed_ms: AtomicU64,
}

impl Overflow {
    /// For a pool that keeps `size` connections in calm times.
    pub(super) fn new(size: usize) -> Self {
        Self { size, began: Instant::now(), needed_ms: AtomicU64::new(0) }
    }

    /// A connection was taken: the pool stands like this.
    pub(super) fn taken(&self, pool: &Status) {
        if pool.size.saturating_sub(pool.available) > self.size {
            self.needed_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// Whether a connection that comes back is closed.
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
