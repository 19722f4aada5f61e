//! Decides when slow commands are an outage.

use std::sync::{Mutex, PoisonError};
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
pub(crate) struct LatencyWindow(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    /// Time-outs since the last success, and when the first of them was sent.
    in_a_row: u32,
    silent_since: Option<Instant>,
    window_began: Option<Instant>,
    commands: u32,
    timeouts: u32,
}

impl Content {
    fn count(&mut self, now: Instant, is_timeout: bool) {
        if self.window_began.is_none_or(|began| began + WINDOW < now) {
            (self.window_began, self.commands, self.timeouts) = (Some(now), 0, 0);
        }
        self.commands += 1;
        self.timeouts += u32::from(is_timeout);
    }
}

impl LatencyWindow {
    pub(crate) fn record_success(&self) {
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        content.count(Instant::now(), false);
        (content.in_a_row, content.silent_since) = (0, None);
    }

    /// Records a command that was sent at `sent` and exceeded its time limit. Returns whether this is an outage.
    pub(crate) fn record_timeout(&self, sent: Instant) -> bool {
        let now = Instant::now();
        let mut content = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        content.count(now, true);
        content.in_a_row += 1;
        let silent_since = *content.silent_since.get_or_insert(sent);
        let is_silent = content.in_a_row >= FEWEST && silent_since + SILENCE <= now;
        is_silent || content.timeouts >= FEWEST_IN_WINDOW && content.timeouts * 2 >= content.commands
    }

    pub(crate) fn reset(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Content::default();
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
