//! Version numbers that invalidate the copies in this process.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::Names;

/// The number of counters. Names that share a counter cause an additional miss, never a stale read.
const SLOTS: usize = 1 << 16;

/// Counters that each invalidation of a name increments.
///
/// A copy is stored together with the [`Versions`] that were read *before* the fetch, and is valid while the counters are
/// unchanged. An invalidation is therefore one addition whatever the number of copies; a copy that was fetched before an
/// invalidation and is stored after it is invalid; and the memory is bounded.
pub(crate) struct VersionTable {
    all: AtomicU64,
    slots: Box<[AtomicU64]>,
}

/// The counters of an entry, of its group and of its tags at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    all: u64,
    entry: u64,
    group: u64,
    /// The sum of the counters of the tags and of the hashes of their names. Counters only grow, so that the sum is the same
    /// only if no tag was invalidated, and other tags have another sum.
    tags: u64,
}

impl VersionTable {
    pub(crate) fn new() -> Self {
        Self { all: AtomicU64::new(0), slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    fn slot(&self, name: &str) -> &AtomicU64 {
        // The upper half of the hash is folded into the few bits of the index.
        let hash = hash(name);
        &self.slots[usize::try_from((hash ^ (hash >> 32)) & (SLOTS as u64 - 1)).unwrap_or_default()]
    }

    /// Reads the counters of an entry and of its group.
    pub(crate) fn read(&self, entry: &str, group: Option<&str>) -> Versions {
        // Acquire pairs with the release in `increment`: a reader of the new number fetches after the invalidation.
        Versions {
            all: self.all.load(Ordering::Acquire),
            entry: self.slot(entry).load(Ordering::Acquire),
            group: group.map_or(0, |group| self.slot(group).load(Ordering::Acquire)),
            tags: 0,
        }
    }

    /// Reads the counters of all names of an entry.
    pub(crate) fn of(&self, names: &Names) -> Versions {
        let versions = self.read(&names.entry, names.group.as_deref());
        let tags = names
            .tags
            .iter()
            .fold(0_u64, |sum, tag| sum.wrapping_add(hash(tag)).wrapping_add(self.slot(tag).load(Ordering::Acquire)));
        Versions { tags, ..versions }
    }

    /// Invalidates all copies of an entry or of a group.
    pub(crate) fn increment(&self, name: &str) {
        self.slot(name).fetch_add(1, Ordering::AcqRel);
    }

    /// Invalidates all copies of an entry or of a group. Returns the new versions if nothing else has invalidated the name
    /// since `before`.
    pub(crate) fn increment_if_unchanged(&self, name: &str, is_group: bool, before: Versions) -> Option<Versions> {
        let (slot, expected) = (self.slot(name), if is_group { before.group } else { before.entry });
        if slot.compare_exchange(expected, expected + 1, Ordering::AcqRel, Ordering::Acquire).is_err() {
            slot.fetch_add(1, Ordering::AcqRel);
            return None;
        }
        // If `all` or the other counter has changed, the returned versions equal no later reading: the copy is invalid.
        Some(if is_group {
            Versions { group: expected + 1, ..before }
        } else {
            Versions { entry: expected + 1, ..before }
        })
    }

    /// Invalidates all copies.
    pub(crate) fn invalidate_all(&self) {
        self.all.fetch_add(1, Ordering::AcqRel);
    }
}

/// FNV-1a (Fowler, Noll, Vo 1991).
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn each_tag_changes_the_versions_and_other_tags_have_others() {
        let table = VersionTable::new();
        let names = |key: Key| Names::new("v1:n", &key);
        let tagged = names(Key::new(1).tag("a").tag("b"));
        let mut seen = vec![table.of(&tagged)];
        for tag in &tagged.tags {
            table.increment(tag);
            seen.push(table.of(&tagged));
        }
        seen.extend([table.of(&names(Key::new(1).tag("a"))), table.of(&names(Key::new(1)))]);
        for (index, versions) in seen.iter().enumerate() {
            assert!(!seen[..index].contains(versions));
        }
        assert_eq!(table.of(&tagged), seen[2]);
    }

    #[test]
    fn an_entry_its_group_and_a_flush_each_change_the_versions() {
        let table = VersionTable::new();
        let read = || table.read("entry", Some("group"));
        let first = read();
        assert_eq!(first, read());
        let mut seen = vec![first];
        table.increment("entry");
        seen.push(read());
        table.increment("group");
        seen.push(read());
        table.invalidate_all();
        seen.push(read());
        for (index, versions) in seen.iter().enumerate() {
            assert!(!seen[..index].contains(versions));
        }
        table.increment("another");
        assert_eq!(seen.last(), Some(&read()), "another name does not share the counters");
    }

    #[test]
    fn a_replaced_value_is_valid_only_if_nothing_else_was_invalidated() {
        let table = VersionTable::new();
        let read = || table.read("entry", Some("group"));
        for (name, is_group) in [("group", true), ("entry", false)] {
            let before = read();
            let after = table.increment_if_unchanged(name, is_group, before).unwrap();
            assert!(after != before && after == read());
            assert_eq!(table.increment_if_unchanged(name, is_group, before), None, "the counter has changed");
            assert_ne!(read(), after, "the counter changes again");
        }
        let before = read();
        table.invalidate_all();
        assert_ne!(table.increment_if_unchanged("group", true, before), Some(read()), "flushed copies stay invalid");
    }
}
