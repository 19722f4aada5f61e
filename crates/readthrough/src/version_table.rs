//! Version numbers that invalidate the copies in this process.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::key::{Key, PrefixHashes, hash};

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

    #[inline]
    fn slot(&self, hash: u64) -> &AtomicU64 {
        // The upper half of the hash is folded into the few bits of the index.
        &self.slots[usize::try_from((hash ^ (hash >> 32)) & (SLOTS as u64 - 1)).unwrap_or_default()]
    }

    /// Reads the counters of the names of an entry.
    #[inline]
    pub(crate) fn read(&self, prefix: &PrefixHashes, key: &Key) -> Versions {
        // Acquire pairs with the release in `increment`: a reader of the new number fetches after the invalidation.
        let counter = |hash: u64| self.slot(hash).load(Ordering::Acquire);
        Versions {
            all: self.all.load(Ordering::Acquire),
            entry: counter(prefix.entry(key)),
            group: prefix.group(key).map_or(0, counter),
            tags: prefix.tags(key).fold(0, |sum: u64, tag| sum.wrapping_add(tag).wrapping_add(counter(tag))),
        }
    }

    /// Invalidates all copies of an entry or of a group.
    pub(crate) fn increment(&self, name: &str) {
        self.slot(hash(&[name])).fetch_add(1, Ordering::AcqRel);
    }

    /// Invalidates all copies of an entry or of a group. Returns the new versions if nothing else has invalidated the name
    /// since `before`.
    pub(crate) fn increment_if_unchanged(&self, name: &str, is_group: bool, before: Versions) -> Option<Versions> {
        let (slot, expected) = (self.slot(hash(&[name])), if is_group { before.group } else { before.entry });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Names;

    /// Creates a member of a group, and returns it with its names.
    fn member() -> (PrefixHashes, Key, Names, String) {
        let key = Key::in_group(1, "member");
        let names = Names::new("v1:n", &key);
        let group = names.group.clone().unwrap();
        (PrefixHashes::new("v1:n"), key, names, group)
    }

    #[test]
    fn each_tag_changes_the_versions_and_other_tags_have_others() {
        let table = VersionTable::new();
        let read = |key: &Key| table.read(&PrefixHashes::new("v1:n"), key);
        let tagged = Key::new(1).tag("a").tag("b");
        let mut seen = vec![read(&tagged)];
        for tag in &Names::new("v1:n", &tagged).tags {
            table.increment(tag);
            seen.push(read(&tagged));
        }
        seen.extend([read(&Key::new(1).tag("a")), read(&Key::new(1))]);
        for (index, versions) in seen.iter().enumerate() {
            assert!(!seen[..index].contains(versions));
        }
        assert_eq!(read(&tagged), seen[2]);
    }

    #[test]
    fn an_entry_its_group_and_a_flush_each_change_the_versions() {
        let table = VersionTable::new();
        let (prefix, key, names, group) = member();
        let read = || table.read(&prefix, &key);
        let first = read();
        assert_eq!(first, read());
        let mut seen = vec![first];
        table.increment(&names.entry);
        seen.push(read());
        table.increment(&group);
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
        let (prefix, key, names, group) = member();
        let read = || table.read(&prefix, &key);
        for (name, is_group) in [(&group, true), (&names.entry, false)] {
            let before = read();
            let after = table.increment_if_unchanged(name, is_group, before).unwrap();
            assert!(after != before && after == read());
            assert_eq!(table.increment_if_unchanged(name, is_group, before), None, "the counter has changed");
            assert_ne!(read(), after, "the counter changes again");
        }
        let before = read();
        table.invalidate_all();
        assert_ne!(table.increment_if_unchanged(&group, true, before), Some(read()), "flushed copies stay invalid");
    }
}
