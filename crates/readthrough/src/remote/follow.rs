//! Follows what other processes invalidate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::wire::{Event, Position};
use crate::stamps::Stamps;

/// Until when this process's own copies may be used.
///
/// Every answer to the question "what is new?" proves that up to the moment of the question nothing was missed.
/// Without an answer for the bound, copies are no longer used, however the silence came about.
#[derive(Debug)]
pub(crate) struct Trust {
    began: Instant,
    bound: Duration,
    until_micros: AtomicU64,
}

impl Trust {
    pub(crate) fn new(bound: Duration) -> Self {
        Self { began: Instant::now(), bound, until_micros: AtomicU64::new(0) }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// Nothing was missed up to `asked`.
    pub(crate) fn renew(&self, asked: Instant) {
        self.until_micros.store(self.micros(asked + self.bound), Ordering::Release);
    }

    pub(crate) fn end(&self) {
        self.until_micros.store(0, Ordering::Release);
    }

    pub(crate) fn holds(&self) -> bool {
        self.micros(Instant::now()) < self.until_micros.load(Ordering::Acquire)
    }
}

/// What an event asks of the one who follows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Applied,
    /// Epochs changed: they are to be read again.
    ReadEpochs,
}

/// Applies an event. When the number is not the next, events were trimmed or lost, and nothing here can be
/// trusted.
pub(crate) fn apply(stamps: &Stamps, node: u64, at: &mut Position, event: Event) -> Step {
    if event.at.number != at.number + 1 {
        tracing::info!(expected = at.number + 1, got = event.at.number, "missed invalidations: own copies are dropped");
        stamps.flush();
    }
    *at = event.at;
    if event.names.is_empty() {
        return Step::ReadEpochs;
    }
    // Its own it has applied before the write was told done.
    if event.node != node {
        for name in &event.names {
            stamps.bump(name);
        }
    }
    Step::Applied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64, node: u64, names: &[&str]) -> Event {
        let at = Position { id: format!("{number}-0"), number };
        Event { at, node, names: names.iter().map(|&name| name.to_owned()).collect() }
    }

    #[test]
    fn a_gap_in_the_numbers_drops_everything() {
        let stamps = Stamps::new();
        let mut at = Position::default();
        let before = stamps.read("a", None);
        assert_eq!(apply(&stamps, 1, &mut at, event(1, 2, &["b"])), Step::Applied);
        assert_eq!(apply(&stamps, 1, &mut at, event(2, 1, &["a"])), Step::Applied);
        assert_eq!(stamps.read("a", None), before, "another name, and an event of one's own");
        apply(&stamps, 1, &mut at, event(3, 2, &["a"]));
        let after = stamps.read("a", None);
        assert_ne!(after, before);
        apply(&stamps, 1, &mut at, event(5, 2, &["b"]));
        assert_ne!(stamps.read("a", None), after, "the fourth was missed");
        let newest = stamps.read("a", None);
        // Made anew after an eviction: it begins with 1 again.
        apply(&stamps, 1, &mut at, event(1, 2, &["b"]));
        assert_ne!(stamps.read("a", None), newest);
        assert_eq!(apply(&stamps, 1, &mut at, event(2, 2, &[])), Step::ReadEpochs);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_trust() {
        let trust = Trust::new(Duration::from_millis(250));
        assert!(!trust.holds());
        let asked = Instant::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        trust.renew(asked);
        assert!(trust.holds());
        tokio::time::advance(Duration::from_millis(150)).await;
        assert!(!trust.holds(), "it counts from the question, not from the answer");
    }
}
