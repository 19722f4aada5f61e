//! Limits the rate of log lines.

use std::time::{Duration, Instant};

/// The minimum time between two log lines on one subject.
const MIN_INTERVAL: Duration = Duration::from_secs(10);

/// Limits the log lines on one subject.
#[derive(Debug, Default)]
pub(crate) struct LogLimiter {
    last: Option<Instant>,
    suppressed: u32,
}

impl LogLimiter {
    /// Returns the number of lines suppressed since the last one if this line may be logged, and `None` otherwise.
    pub(crate) fn try_acquire(&mut self, now: Instant) -> Option<u32> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < MIN_INTERVAL) {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_reports_the_suppressed_ones() {
        let (mut limiter, start) = (LogLimiter::default(), Instant::now());
        assert_eq!(limiter.try_acquire(start), Some(0));
        assert_eq!(limiter.try_acquire(start + MIN_INTERVAL / 2), None);
        assert_eq!(limiter.try_acquire(start + MIN_INTERVAL / 2), None);
        assert_eq!(limiter.try_acquire(start + MIN_INTERVAL), Some(2));
        assert_eq!(limiter.try_acquire(start + MIN_INTERVAL * 3), Some(0));
    }
}
