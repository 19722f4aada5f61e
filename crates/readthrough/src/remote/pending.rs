//! Invalidations that the second tier has not received.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    names: BTreeSet<String>,
    /// Whether all values are to be flushed.
    flush: bool,
}

/// A part of the pending invalidations.
#[derive(Debug)]
pub(crate) enum Batch {
    Names(Vec<String>),
    Flush,
}

impl PendingInvalidations {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether anything is pending.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Returns the number of pending names.
    pub(crate) fn len(&self) -> usize {
        self.content().names.len()
    }

    pub(crate) fn add_names(&self, names: impl IntoIterator<Item = String>) {
        let mut content = self.content();
        content.names.extend(names);
        if content.names.len() > MAX_PENDING {
            content.flush = true;
            content.names.clear();
        }
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn add_flush(&self) {
        self.content().flush = true;
        self.any.store(true, Ordering::Release);
    }

    /// Replaces the pending names by a flush of all values.
    pub(crate) fn replace_by_flush(&self) {
        let mut content = self.content();
        *content = Content { names: BTreeSet::new(), flush: true };
        self.any.store(true, Ordering::Release);
    }

    /// Adds a batch again that was not delivered.
    pub(crate) fn restore(&self, batch: Batch) {
        match batch {
            Batch::Names(names) => self.add_names(names),
            Batch::Flush => self.add_flush(),
        }
    }

    /// Removes and returns up to `limit` names, or a flush. A name that is added during the delivery of the batch is
    /// delivered again.
    pub(crate) fn take_batch(&self, limit: usize) -> Option<Batch> {
        let mut content = self.content();
        if std::mem::take(&mut content.flush) {
            return Some(Batch::Flush);
        }
        let names: Vec<String> = content.names.iter().take(limit).cloned().collect();
        if names.is_empty() {
            self.any.store(false, Ordering::Release);
            return None;
        }
        for name in &names {
            content.names.remove(name);
        }
        Some(Batch::Names(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_was_not_delivered_is_pending_again() {
        let pending = PendingInvalidations::default();
        assert!(!pending.any() && pending.take_batch(2).is_none());
        pending.add_names(["a", "b", "c"].map(str::to_owned));
        let Some(Batch::Names(names)) = pending.take_batch(2) else { panic!("names are pending") };
        assert_eq!((names.len(), pending.len(), pending.any()), (2, 1, true));
        pending.restore(Batch::Names(names));
        assert_eq!(pending.len(), 3);
        pending.add_flush();
        assert!(matches!(pending.take_batch(2), Some(Batch::Flush)));
        assert!(matches!(pending.take_batch(9), Some(Batch::Names(names)) if names.len() == 3));
        assert!(pending.any(), "until an empty batch proves the delivery of the last one");
        assert!(pending.take_batch(2).is_none() && !pending.any());
    }

    #[test]
    fn too_many_names_become_a_flush() {
        let pending = PendingInvalidations::default();
        pending.add_names((0..=MAX_PENDING).map(|name| name.to_string()));
        assert_eq!(pending.len(), 0);
        assert!(matches!(pending.take_batch(2), Some(Batch::Flush)));
    }
}
