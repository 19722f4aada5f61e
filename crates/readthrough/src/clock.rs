//! The clock that all processes share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::time::Instant;

/// Milliseconds since 1970 by the clock of Redis, or by that of this machine without Redis.
///
/// The clock advances with tokio's clock, which tests can pause. The clocks of the machines may differ and jump, because
/// processes compare only times of the server.
#[derive(Debug)]
pub(crate) struct Clock {
    began: Instant,
    /// The shared time at `began`.
    base_ms: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let base_ms = AtomicU64::new(u64::try_from(since.as_millis()).unwrap_or(0));
        Self { began: Instant::now(), base_ms }
    }

    #[inline]
    fn elapsed_ms(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(0)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.ms_at(Instant::now())
    }

    /// Returns the shared time at a moment.
    #[inline]
    pub(crate) fn ms_at(&self, at: Instant) -> u64 {
        self.base_ms.load(Ordering::Relaxed).saturating_add(self.elapsed_ms(at))
    }

    /// Sets the clock to the time of the server.
    pub(crate) fn set(&self, time_ms: u64) {
        self.base_ms.store(time_ms.saturating_sub(self.elapsed_ms(Instant::now())), Ordering::Relaxed);
    }
}
