//! Version numbers that invalidate the copies in this process.

use std::sync::Arc;
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

/// The index of a counter. Every index is valid.
type Slot = u16;

/// The counters of an entry, of its group and of its tags at one moment.
///
/// The places of the counters are included, so that a comparison hashes no name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versions {
    /// The sum of the counters. It is the same only if no counter has changed, because counters only grow.
    sum: u64,
    entry: Slot,
    /// The counter of the group; without a group, that of the entry, which then counts twice.
    group: Slot,
    /// The hashes of the tags' names. A thin pointer, because each hit in L1 copies it.
    tags: Option<Arc<Vec<u64>>>,
}

#[inline]
fn slot(hash: u64) -> Slot {
    // The upper half of the hash is folded into the few bits of the index.
    Slot::try_from((hash ^ (hash >> 32)) & u64::from(Slot::MAX)).unwrap_or_default()
}

impl VersionTable {
    pub(crate) fn new() -> Self {
        Self { all: AtomicU64::new(0), slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Reads a counter. Acquire pairs with the release in `increment`: a reader of the new number fetches after the
    /// invalidation.
    #[inline]
    fn counter(&self, slot: Slot) -> u64 {
        self.slots[usize::from(slot)].load(Ordering::Acquire)
    }

    /// Reads the counters of the names of an entry.
    pub(crate) fn read(&self, prefix: &PrefixHashes, key: &Key) -> Versions {
        let entry = slot(prefix.entry(key));
        let tags: Vec<u64> = prefix.tags(key).collect();
        let mut versions = Versions {
            sum: 0,
            entry,
            group: prefix.group(key).map_or(entry, slot),
            tags: (!tags.is_empty()).then(|| Arc::new(tags)),
        };
        versions.sum = self.sum(&versions);
        versions
    }

    #[inline]
    fn sum(&self, at: &Versions) -> u64 {
        let sum = self.all.load(Ordering::Acquire) + self.counter(at.entry) + self.counter(at.group);
        let tags = at.tags.as_ref().map_or(0, |tags| tags.iter().map(|tag| self.counter(slot(*tag))).sum());
        sum + tags
    }

    /// Returns whether nothing has been invalidated since the versions were read.
    #[inline]
    pub(crate) fn is_current(&self, versions: &Versions) -> bool {
        self.sum(versions) == versions.sum
    }

    /// Invalidates all copies of an entry or of a group.
    pub(crate) fn increment(&self, name: &str) {
        self.slots[usize::from(slot(hash(&[name])))].fetch_add(1, Ordering::AcqRel);
    }

    /// Invalidates all copies of an entry's group, or of the entry if it has none. Returns the new versions if nothing else
    /// has invalidated the name since `before`.
    pub(crate) fn increment_if_unchanged(&self, before: Versions) -> Option<Versions> {
        let counter = &self.slots[usize::from(before.group)];
        let expected = counter.load(Ordering::Acquire);
        // Checked after `expected` was read, which is therefore the counter of `before`.
        let is_unchanged = self.is_current(&before)
            && counter.compare_exchange(expected, expected + 1, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !is_unchanged {
            counter.fetch_add(1, Ordering::AcqRel);
            return None;
        }
        // If another counter has changed since, the returned versions are never current: the copy is invalid.
        let times = if before.entry == before.group { 2 } else { 1 };
        Some(Versions { sum: before.sum + times, ..before })
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
            assert!(table.is_current(seen.last().unwrap()));
            table.increment(tag);
            assert!(!table.is_current(seen.last().unwrap()));
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
        let changes: [&dyn Fn(); 3] =
            [&|| table.increment(&names.entry), &|| table.increment(&group), &|| table.invalidate_all()];
        for change in changes {
            assert!(table.is_current(seen.last().unwrap()));
            change();
            assert!(!table.is_current(seen.last().unwrap()));
            seen.push(read());
        }
        for (index, versions) in seen.iter().enumerate() {
            assert!(!seen[..index].contains(versions));
        }
        table.increment("another");
        assert_eq!(seen.last(), Some(&read()), "another name does not share the counters");
    }

    #[test]
    fn a_replaced_value_is_valid_only_if_nothing_else_was_invalidated() {
        let table = VersionTable::new();
        let prefix = PrefixHashes::new("v1:n");
        for key in [Key::in_group(1, "member"), Key::new(1)] {
            let read = || table.read(&prefix, &key);
            let before = read();
            let after = table.increment_if_unchanged(before.clone()).unwrap();
            assert!(after != before && after == read() && table.is_current(&after) && !table.is_current(&before));
            assert_eq!(table.increment_if_unchanged(before), None, "the counter has changed");
            assert!(!table.is_current(&after), "the counter changes again");
            let before = read();
            table.invalidate_all();
            assert_eq!(table.increment_if_unchanged(before), None, "flushed copies stay invalid");
            let before = read();
            table.increment(&Names::new("v1:n", &key).entry);
            assert_eq!(table.increment_if_unchanged(before), None, "invalidated copies stay invalid");
        }
    }
}
