//! What makes copies in this process unusable.

use std::sync::atomic::{AtomicU64, Ordering};

/// So many counters share all names; two names on one counter cost a miss now and then, never a stale read.
const SLOTS: usize = 1 << 16;

/// Counters that move when a name is invalidated.
///
/// A copy is kept together with the [`Stamp`] that was read *before* it was fetched, and is good as long as the
/// counters still say the same. So an invalidation is one addition however many copies there are; a copy that
/// was fetched before an invalidation and is stored after it is born unusable; and memory is bounded.
pub(crate) struct Stamps {
    flushes: AtomicU64,
    slots: Box<[AtomicU64]>,
}

/// What the counters said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    flushes: u64,
    entry: u64,
    group: u64,
}

impl Stamps {
    pub(crate) fn new() -> Self {
        Self { flushes: AtomicU64::new(0), slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    fn slot(&self, name: &str) -> &AtomicU64 {
        // FNV-1a (Fowler, Noll, Vo 1991); its upper half is folded in, as the slots are few.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        &self.slots[usize::try_from((hash ^ (hash >> 32)) & (SLOTS as u64 - 1)).unwrap_or_default()]
    }

    /// What the counters of an entry and of its group say now.
    pub(crate) fn read(&self, entry: &str, group: Option<&str>) -> Stamp {
        // Acquire, with the release in `bump`: who sees the new number also fetches after what it announced.
        Stamp {
            flushes: self.flushes.load(Ordering::Acquire),
            entry: self.slot(entry).load(Ordering::Acquire),
            group: group.map_or(0, |group| self.slot(group).load(Ordering::Acquire)),
        }
    }

    /// Makes all copies of an entry, or of a group, unusable.
    pub(crate) fn bump(&self, name: &str) {
        self.slot(name).fetch_add(1, Ordering::AcqRel);
    }

    /// Makes all copies of an entry, or of the group that it is in, unusable, and gives the stamp from then on, if this is
    /// the only thing that has happened to the name since `before`.
    pub(crate) fn bump_from(&self, name: &str, is_group: bool, before: Stamp) -> Option<Stamp> {
        let (slot, expected) = (self.slot(name), if is_group { before.group } else { before.entry });
        if slot.compare_exchange(expected, expected + 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
            slot.fetch_add(1, Ordering::AcqRel);
            return None;
        }
        // A flush, or something else that happened to the entry, is not in it: then it is good for nothing.
        Some(if is_group { Stamp { group: expected + 1, ..before } } else { Stamp { entry: expected + 1, ..before } })
    }

    /// Makes all copies unusable.
    pub(crate) fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_its_group_and_a_flush_each_change_the_stamp() {
        let stamps = Stamps::new();
        let read = || stamps.read("entry", Some("group"));
        let first = read();
        assert_eq!(first, read());
        let mut seen = vec![first];
        stamps.bump("entry");
        seen.push(read());
        stamps.bump("group");
        seen.push(read());
        stamps.flush();
        seen.push(read());
        for (index, stamp) in seen.iter().enumerate() {
            assert!(!seen[..index].contains(stamp));
        }
        stamps.bump("another");
        assert_eq!(seen.last(), Some(&read()), "these two names have slots of their own");
    }

    #[test]
    fn a_changed_value_is_good_only_if_nothing_else_happened() {
        let stamps = Stamps::new();
        let read = || stamps.read("entry", Some("group"));
        for (name, is_group) in [("group", true), ("entry", false)] {
            let before = read();
            let after = stamps.bump_from(name, is_group, before).unwrap();
            assert!(after != before && after == read());
            assert_eq!(stamps.bump_from(name, is_group, before), None, "it has moved");
            assert_ne!(read(), after, "and it moves again");
        }
        let before = read();
        stamps.flush();
        assert_ne!(stamps.bump_from("group", true, before), Some(read()), "what was flushed stays unusable");
    }
}
