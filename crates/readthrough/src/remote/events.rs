//! The invalidations of other processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::tier::{Event, StreamPosition};
use crate::trace::info;
use crate::version_table::VersionTable;

/// The time until which reads may use the copies in this process.
///
/// Each response to a read of the stream proves that no invalidation was missed up to the time of the request. Without a
/// response for the bound, reads stop using the copies, whatever the reason.
#[derive(Debug)]
pub(crate) struct FreshnessDeadline {
    began: Instant,
    bound: Duration,
    until_micros: AtomicU64,
}

impl FreshnessDeadline {
    pub(crate) fn new(bound: Duration) -> Self {
        Self { began: Instant::now(), bound, until_micros: AtomicU64::new(0) }
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// Extends the deadline: no invalidation was missed up to `requested`.
    pub(crate) fn extend(&self, requested: Instant) {
        self.until_micros.store(self.micros(requested + self.bound), Ordering::Release);
    }

    /// Ends the use of the copies.
    pub(crate) fn expire(&self) {
        self.until_micros.store(0, Ordering::Release);
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.micros(Instant::now()) < self.until_micros.load(Ordering::Acquire)
    }
}

/// What remains to be done after an event was applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FollowUp {
    None,
    /// Epochs changed and must be read again.
    ReadEpochs,
}

/// Applies an event to the copies. If its sequence number is not the next one, events were lost and all copies are
/// invalidated.
pub(crate) fn apply(versions: &VersionTable, node: u64, position: &mut StreamPosition, event: Event) -> FollowUp {
    let expected = position.sequence + 1;
    if event.position.sequence != expected {
        info!(expected, received = event.position.sequence, "invalidation events lost; all L1 copies dropped");
        versions.invalidate_all();
    }
    *position = event.position;
    if event.names.is_empty() {
        return FollowUp::ReadEpochs;
    }
    // A process applies its own invalidations before it returns from them.
    if event.node != node {
        for name in &event.names {
            versions.increment(name);
        }
    }
    FollowUp::None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, node: u64, names: &[&str]) -> Event {
        let position = StreamPosition { id: format!("{sequence}-0"), sequence };
        Event { position, node, names: names.iter().map(|&name| name.to_owned()).collect() }
    }

    #[test]
    fn a_gap_in_the_sequence_invalidates_all_copies() {
        let table = VersionTable::new();
        let mut position = StreamPosition::default();
        let before = table.read("a", None);
        assert_eq!(apply(&table, 1, &mut position, event(1, 2, &["b"])), FollowUp::None);
        assert_eq!(apply(&table, 1, &mut position, event(2, 1, &["a"])), FollowUp::None);
        assert_eq!(table.read("a", None), before, "another name, and an event of this process");
        apply(&table, 1, &mut position, event(3, 2, &["a"]));
        let after = table.read("a", None);
        assert_ne!(after, before);
        apply(&table, 1, &mut position, event(5, 2, &["b"]));
        assert_ne!(table.read("a", None), after, "the fourth event was lost");
        let newest = table.read("a", None);
        // The stream was evicted and created again: it begins with 1.
        apply(&table, 1, &mut position, event(1, 2, &["b"]));
        assert_ne!(table.read("a", None), newest);
        assert_eq!(apply(&table, 1, &mut position, event(2, 2, &[])), FollowUp::ReadEpochs);
    }

    #[tokio::test(start_paused = true)]
    async fn copies_are_stale_without_a_response() {
        let deadline = FreshnessDeadline::new(Duration::from_millis(250));
        assert!(!deadline.is_fresh());
        let requested = Instant::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        deadline.extend(requested);
        assert!(deadline.is_fresh());
        tokio::time::advance(Duration::from_millis(150)).await;
        assert!(!deadline.is_fresh(), "the bound counts from the request, not from the response");
    }
}
