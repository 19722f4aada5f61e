//! The clock of connections and admission, which tests can advance.

use std::time::{Duration, Instant};

/// Returns the current time.
pub(super) fn now() -> Instant {
    #[cfg(test)]
    return Instant::now() + AHEAD.get();
    #[cfg(not(test))]
    Instant::now()
}

/// Returns the time elapsed since an instant.
pub(super) fn since(past: Instant) -> Duration {
    now().saturating_duration_since(past)
}

#[cfg(test)]
thread_local! {
    static AHEAD: std::cell::Cell<Duration> = const { std::cell::Cell::new(Duration::ZERO) };
}

/// Advances the clock of this thread.
#[cfg(test)]
pub(super) fn advance(by: Duration) {
    AHEAD.set(AHEAD.get() + by);
}
