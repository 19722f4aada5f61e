//! The time by which connections and admission measure; tests move it on.

use std::time::{Duration, Instant};

/// Returns the present.
pub(super) fn now() -> Instant {
    #[cfg(test)]
    return Instant::now() + AHEAD.get();
    #[cfg(not(test))]
    Instant::now()
}

/// Returns how long ago a time was.
pub(super) fn since(past: Instant) -> Duration {
    now().saturating_duration_since(past)
}

#[cfg(test)]
thread_local! {
    static AHEAD: std::cell::Cell<Duration> = const { std::cell::Cell::new(Duration::ZERO) };
}

/// Moves the present of this thread on.
#[cfg(test)]
pub(super) fn advance(by: Duration) {
    AHEAD.set(AHEAD.get() + by);
}
