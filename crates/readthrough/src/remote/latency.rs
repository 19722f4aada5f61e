//! Decides when slow commands are an outage.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Without a success for this long, time-outs are an outage.
const SILENCE: Duration = Duration::from_millis(250);
/// The fewest time-outs in a row that are an outage.
const FEWEST: u32 = 3;
/// The length of the window in which the share of time-outs counts.
const WINDOW: Duration = Duration::from_secs(5);
/// The fewest time-outs in a window that are an outage if they are half of the commands.
const FEWEST_IN_WINDOW: u32 = 20;

/// The time-outs of recent commands.
///
/// A single slow command is not an outage. Time-outs are one when no command succeeds for a while, or when half of the
/// commands of a window exceed their time limit.
#[derive(Debug, Default)]
pub(crate) struct LatencyWindow {
    /// Successes in the window. A success without time-outs before it only counts.
    successes: AtomicU32,
    has_silence: AtomicBool,
    content: Mutex<Content>,
}

/// A window begins with a time-out.
#[derive(Debug, Default)]
struct Content {
    /// Time-outs since the last success, and when the first of them was sent.
    in_a_row: u32,
    silent_since: Option<Instant>,
    window_began: Option<Instant>,
    timeouts: u32,
}

impl LatencyWindow {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record_success(&self) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        if self.has_silence.load(Ordering::Acquire) {
            let mut content = self.content();
            (content.in_a_row, content.silent_since) = (0, None);
            self.has_silence.store(false, Ordering::Release);
        }
    }

    /// Records a command that was sent at `sent` and exceeded its time limit. Returns whether this is an outage.
    pub(crate) fn record_timeout(&self, sent: Instant) -> bool {
        let now = Instant::now();
        let mut content = self.content();
        if content.window_began.is_none_or(|began| began + WINDOW < now) {
            (content.window_began, content.timeouts) = (Some(now), 0);
            self.successes.store(0, Ordering::Relaxed);
        }
        content.timeouts += 1;
        content.in_a_row += 1;
        self.has_silence.store(true, Ordering::Release);
        let silent_since = *content.silent_since.get_or_insert(sent);
        let is_silent = content.in_a_row >= FEWEST && silent_since + SILENCE <= now;
        let successes = self.successes.load(Ordering::Relaxed);
        is_silent || content.timeouts >= FEWEST_IN_WINDOW && content.timeouts >= successes
    }

    pub(crate) fn reset(&self) {
        let mut content = self.content();
        *content = Content::default();
        self.has_silence.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn timeout(window: &LatencyWindow) -> bool {
        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(50)).await;
        window.record_timeout(sent)
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_command_is_no_outage_and_silence_is() {
        let window = LatencyWindow::default();
        for _ in 0..50 {
            assert!(!timeout(&window).await);
            window.record_success();
            window.record_success();
        }
        // A hiccup that many commands wait for at the same time.
        let sent = Instant::now();
        tokio::time::advance(Duration::from_millis(60)).await;
        assert!((0..15).all(|_| !window.record_timeout(sent)));
        window.record_success();
        window.reset();
        let outage = async {
            let mut commands = 1;
            while !timeout(&window).await {
                commands += 1;
            }
            commands
        };
        assert_eq!(outage.await, 5, "250 ms without a success");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_slow_for_half_of_the_commands_is_an_outage() {
        let window = LatencyWindow::default();
        let mut timeouts = 1;
        while !timeout(&window).await {
            window.record_success();
            timeouts += 1;
        }
        assert_eq!(timeouts, FEWEST_IN_WINDOW);
    }
}
