//! The invalidations of other processes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::tier::{Poll, StreamPosition};
use crate::trace::info;
use crate::version_table::VersionTable;

/// Without a proof for this long, reads stop using the second tier.
const REMOTE_BOUND: Duration = Duration::from_secs(1);

/// The time up to which this process is known to have missed no invalidation.
///
/// Each poll proves that the server was the master and that no invalidation was missed, up to the time of the request.
/// Without a proof for the bound, reads stop using the copies in this process, whatever the reason; without one for a
/// second, they stop using the second tier.
#[derive(Debug)]
pub(crate) struct Freshness {
    began: Instant,
    /// The bound of the copies in this process, and of the second tier, in microseconds.
    l1_bound: u64,
    remote_bound: u64,
    /// Microseconds from `began` to the proof; 0 without one.
    proved_micros: AtomicU64,
}

#[inline]
fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into())
}

impl Freshness {
    pub(crate) fn new(bound: Duration) -> Self {
        Self {
            began: Instant::now(),
            l1_bound: micros(bound),
            remote_bound: micros(REMOTE_BOUND.max(bound)),
            proved_micros: AtomicU64::new(0),
        }
    }

    #[inline]
    fn micros(&self, at: Instant) -> u64 {
        micros(at.saturating_duration_since(self.began))
    }

    /// Records that no invalidation was missed up to `requested`.
    pub(crate) fn prove(&self, requested: Instant) {
        self.proved_micros.store(self.micros(requested) + 1, Ordering::Release);
    }

    /// Ends the use of the copies and of the second tier.
    pub(crate) fn expire(&self) {
        self.proved_micros.store(0, Ordering::Release);
    }

    #[inline]
    fn is_proved_within(&self, bound: u64, now: Instant) -> bool {
        let proved = self.proved_micros.load(Ordering::Acquire);
        proved > 0 && self.micros(now) < (proved - 1).saturating_add(bound)
    }

    /// Returns whether reads that began at `now` may use the copies in this process.
    #[inline]
    pub(crate) fn is_l1_fresh(&self, now: Instant) -> bool {
        self.is_proved_within(self.l1_bound, now)
    }

    /// Returns whether reads that began at `now` may use the second tier.
    pub(crate) fn is_remote_fresh(&self, now: Instant) -> bool {
        self.is_proved_within(self.remote_bound, now)
    }
}

/// Applies a poll of the stream to the copies, and moves the position.
///
/// All copies are invalidated if an event is not the next in the sequence, or if the stream does not continue from the
/// position: events were trimmed, or the stream was evicted.
pub(crate) fn apply(versions: &VersionTable, node: u64, position: &mut StreamPosition, poll: &mut Poll) {
    // The newest event is the last one that this process has applied, or among the ones that it receives now.
    let is_continued = match &poll.tail {
        Some(tail) => tail == position || poll.events.iter().any(|event| event.position == *tail),
        None => position.sequence == 0,
    };
    let is_empty = poll.events.is_empty();
    for event in std::mem::take(&mut poll.events) {
        let expected = position.sequence + 1;
        if event.position.sequence != expected {
            info!(expected, received = event.position.sequence, "invalidation events lost; L1 copies dropped");
            versions.invalidate_all();
        }
        *position = event.position;
        // A process applies its own invalidations before it returns from them.
        if event.node != node {
            for name in &event.names {
                versions.increment(name);
            }
        }
    }
    if !is_continued {
        info!(sequence = position.sequence, "the stream of invalidations was lost; L1 copies dropped");
        versions.invalidate_all();
        if is_empty {
            *position = poll.tail.take().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Key, PrefixHashes};
    use crate::remote::tier::Event;
    use crate::version_table::Versions;

    fn name(id: &str) -> String {
        format!("v1:n:{{{id}}}")
    }

    fn read(table: &VersionTable, id: &str) -> Versions {
        table.read(&PrefixHashes::new("v1:n"), &Key::new(id))
    }

    fn at(ms: u64, sequence: u64) -> StreamPosition {
        StreamPosition { id: format!("{ms}-0"), sequence }
    }

    fn poll(tail: Option<StreamPosition>, events: &[(u64, u64, u64, &str)]) -> Poll {
        let event = |&(ms, sequence, node, id): &(u64, u64, u64, &str)| Event {
            position: at(ms, sequence),
            node,
            names: vec![name(id)],
        };
        Poll { tail, events: events.iter().map(event).collect(), ..Poll::default() }
    }

    /// Applies polls from the position (5, 5). Returns whether the copies of `a` and `b` stay valid.
    fn apply_all(polls: impl IntoIterator<Item = Poll>) -> (bool, bool) {
        let table = VersionTable::new();
        let mut position = at(5, 5);
        let before = (read(&table, "a"), read(&table, "b"));
        for mut poll in polls {
            apply(&table, 1, &mut position, &mut poll);
        }
        (read(&table, "a") == before.0, read(&table, "b") == before.1)
    }

    #[test]
    fn events_of_other_processes_invalidate_their_names() {
        assert_eq!(apply_all([poll(Some(at(5, 5)), &[])]), (true, true));
        assert_eq!(apply_all([poll(Some(at(5, 5)), &[(6, 6, 2, "a")])]), (false, true));
        assert_eq!(
            apply_all([poll(Some(at(6, 6)), &[(6, 6, 1, "a"), (7, 7, 2, "b")])]),
            (true, false),
            "its own event"
        );
    }

    #[test]
    fn lost_events_invalidate_all_copies() {
        let lost = [
            ("trimmed", poll(Some(at(7, 7)), &[(7, 7, 1, "c")])),
            ("the stream was created again", poll(Some(at(6, 1)), &[(6, 1, 1, "c")])),
            ("the stream was evicted", poll(None, &[])),
        ];
        for (what, poll) in lost {
            assert_eq!(apply_all([poll]), (false, false), "{what}");
        }
        // The read returns nothing, because the ids of the new stream are lower.
        let table = VersionTable::new();
        let (mut position, before) = (at(5, 5), read(&table, "a"));
        apply(&table, 1, &mut position, &mut poll(Some(at(3, 1)), &[]));
        assert_eq!((position.clone(), read(&table, "a") == before), (at(3, 1), false));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_fresh_without_a_proof() {
        let freshness = Freshness::new(Duration::from_millis(250));
        assert!(!freshness.is_l1_fresh(Instant::now()) && !freshness.is_remote_fresh(Instant::now()));
        let requested = Instant::now();
        tokio::time::advance(Duration::from_millis(100)).await;
        freshness.prove(requested);
        assert!(freshness.is_l1_fresh(Instant::now()));
        tokio::time::advance(Duration::from_millis(150)).await;
        assert!(!freshness.is_l1_fresh(Instant::now()), "the bound counts from the request, not from the response");
        assert!(freshness.is_remote_fresh(Instant::now()));
        tokio::time::advance(Duration::from_millis(750)).await;
        assert!(!freshness.is_remote_fresh(Instant::now()));
    }
}
