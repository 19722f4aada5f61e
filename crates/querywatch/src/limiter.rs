//! Keeps the log short.

use std::time::{Duration, Instant};

/// At most one line about the same thing in this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// Decides what is logged of many alike.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    last: Option<Instant>,
    suppressed: u32,
}

impl Limiter {
    /// Whether this one is logged, and then how many were not since the last.
    pub(crate) fn admit(&mut self, now: Instant) -> Option<u32> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
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
    fn one_in_ten_seconds_says_how_many_there_were() {
        let (mut limiter, began) = (Limiter::default(), Instant::now());
        assert_eq!(limiter.admit(began), Some(0));
        assert_eq!(limiter.admit(began + INTERVAL / 2), None);
        assert_eq!(limiter.admit(began + INTERVAL / 2), None);
        assert_eq!(limiter.admit(began + INTERVAL), Some(2));
        assert_eq!(limiter.admit(began + INTERVAL * 3), Some(0));
    }
}
