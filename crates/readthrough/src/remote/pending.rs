//! Invalidations that the second tier has not received.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::key::Names;

/// With more pending names than this, all values are flushed instead.
const MAX_PENDING: usize = 100_000;

/// The invalidations to send when the second tier responds.
#[derive(Debug, Default)]
pub(crate) struct PendingInvalidations {
    content: Mutex<Content>,
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Content {
    /// Each name with the number of its newest invalidation.
    names: BTreeMap<String, u64>,
    /// The number of the flush of all values, if one is pending.
    flush: Option<u64>,
    newest: u64,
}

/// A part of the pending invalidations. They stay pending until [`PendingInvalidations::confirm`].
#[derive(Debug)]
pub(crate) enum Batch {
    Names(Vec<(String, u64)>),
    Flush(u64),
}

impl PendingInvalidations {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Content)) {
        let mut content = self.content();
        content.newest += 1;
        change(&mut content);
        self.any.store(content.flush.is_some() || !content.names.is_empty(), Ordering::Release);
    }

    /// Returns whether anything is pending.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Returns whether an invalidation of an entry is pending, by its name, its group or a flush.
    pub(crate) fn affects(&self, names: &Names) -> bool {
        if !self.any() {
            return false;
        }
        let content = self.content();
        let contains = |name: &String| content.names.contains_key(name);
        content.flush.is_some() || contains(&names.entry) || names.group.iter().chain(&names.tags).any(contains)
    }

    /// Returns the number of pending names, and whether a flush is pending.
    pub(crate) fn count(&self) -> (usize, bool) {
        let content = self.content();
        (content.names.len(), content.flush.is_some())
    }

    pub(crate) fn add_names(&self, names: impl IntoIterator<Item = String>) {
        self.change(|content| {
            let number = content.newest;
            content.names.extend(names.into_iter().map(|name| (name, number)));
            if content.names.len() > MAX_PENDING {
                content.flush = Some(number);
                content.names.clear();
            }
        });
    }

    pub(crate) fn add_flush(&self) {
        self.change(|content| content.flush = Some(content.newest));
    }

    /// Replaces the pending names by a flush of all values.
    pub(crate) fn replace_by_flush(&self) {
        self.change(|content| {
            content.flush = Some(content.newest);
            content.names.clear();
        });
    }

    /// Returns up to `limit` names, or a flush.
    pub(crate) fn batch(&self, limit: usize) -> Option<Batch> {
        let content = self.content();
        if let Some(number) = content.flush {
            return Some(Batch::Flush(number));
        }
        let names: Vec<_> = content.names.iter().take(limit).map(|(name, number)| (name.clone(), *number)).collect();
        (!names.is_empty()).then_some(Batch::Names(names))
    }

    /// Removes a batch that was delivered, except names that were invalidated again meanwhile.
    pub(crate) fn confirm(&self, batch: &Batch) {
        self.change(|content| match batch {
            Batch::Names(names) => {
                for (name, number) in names {
                    if content.names.get(name) == Some(number) {
                        content.names.remove(name);
                    }
                }
            }
            Batch::Flush(number) => {
                content.flush = content.flush.filter(|pending| pending != number);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn names_are_pending_until_their_delivery_is_confirmed() {
        let pending = PendingInvalidations::default();
        assert!(!pending.any() && pending.batch(2).is_none());
        pending.add_names(["a", "b", "c"].map(str::to_owned));
        let first = pending.batch(2).unwrap();
        assert_eq!(pending.count(), (3, false), "until it is confirmed");
        // Invalidated again during the delivery.
        pending.add_names(["a".to_owned()]);
        pending.confirm(&first);
        assert_eq!(pending.count(), (2, false), "a again, and c");
        pending.add_flush();
        let flush = pending.batch(2).unwrap();
        assert!(matches!(flush, Batch::Flush(_)));
        pending.confirm(&flush);
        let last = pending.batch(9).unwrap();
        pending.confirm(&last);
        assert!(!pending.any() && pending.batch(2).is_none());
    }

    #[test]
    fn a_pending_name_affects_its_own_entries() {
        let pending = PendingInvalidations::default();
        let member = Names::new("v1:n", &Key::in_group("g", 1));
        let other = Names::new("v1:n", &Key::in_group("h", 1));
        pending.add_names(member.group.clone());
        assert!(pending.affects(&member) && !pending.affects(&other));
        pending.add_flush();
        assert!(pending.affects(&other));
    }

    #[test]
    fn too_many_names_become_a_flush() {
        let pending = PendingInvalidations::default();
        pending.add_names((0..=MAX_PENDING).map(|name| name.to_string()));
        assert_eq!(pending.count(), (0, true));
    }
}
