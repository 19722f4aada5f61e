//! The identity of the database behind the connections of the pool.
//!
//! A URL can suddenly lead to another database: a standby was promoted, or a dump was restored. Each connection reads
//! the identity when it is opened. An identity that differs from the pool's begins a new term: listeners are notified
//! before the connection is used, and connections of earlier terms are closed instead of used. A poll detects changes
//! behind open connections, as after a restore in place or behind a pooler.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tutord_core::operations::{DatabaseIdentity, IdentityListener};

/// The identity of the database behind the pool.
#[derive(Default)]
pub(super) struct Monitor {
    /// The current term, which increases with each change of the identity.
    term: AtomicU64,
    state: Mutex<MonitorState>,
}

#[derive(Default)]
struct MonitorState {
    identity: Option<DatabaseIdentity>,
    listener: Option<IdentityListener>,
}

impl Monitor {
    pub(super) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Adopts the identity read by a connection that was begun in term `since`, and returns the term of the connection.
    /// Returns `None` if another identity was found meanwhile, because the order of the two is unknown.
    pub(super) fn observe(&self, found: Option<DatabaseIdentity>, since: u64) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if found == state.identity {
            return Some(self.term());
        }
        if since != self.term() {
            return None;
        }
        match (&state.identity, &found) {
            (Some(_), Some(_)) => {
                tracing::warn!("the database has a new identity; values cached from the old database are not used");
            }
            (Some(_), None) => {
                tracing::warn!(
                    "the identity of the database is unknown, as on a server in recovery or without tutord's tables: \
                     nothing is cached"
                );
            }
            (None, _) => {}
        }
        state.identity = found;
        let term = self.term.fetch_add(1, Ordering::AcqRel) + 1;
        if let Some(listener) = &state.listener {
            listener(state.identity.as_ref());
        }
        Some(term)
    }

    pub(super) fn listen(&self, listener: IdentityListener) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        listener(state.identity.as_ref());
        state.listener = Some(listener);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn whoever_listens_is_told_of_each_change_and_a_late_answer_changes_nothing() {
        let [a, b] = ["a", "b"].map(|timeline| Some(DatabaseIdentity::of(&["1", "2", "3"], timeline)));
        assert_eq!(a.as_ref().map(|a| &a.lineage), b.as_ref().map(|b| &b.lineage));
        let (monitor, told) = (Monitor::default(), Arc::<Mutex<Vec<_>>>::default());
        let telling = Arc::clone(&told);
        monitor.listen(Arc::new(move |identity| telling.lock().unwrap().push(identity.cloned())));
        let first = monitor.observe(a.clone(), monitor.term()).unwrap();
        assert_eq!(monitor.observe(a.clone(), 0), Some(first), "a connection that was begun before leads there, too");
        let second = monitor.observe(b.clone(), first).unwrap();
        assert_eq!(monitor.observe(a.clone(), first), None);
        let third = monitor.observe(a.clone(), second).unwrap();
        assert!(first < second && second < third && third == monitor.term());
        assert_eq!(*told.lock().unwrap(), [None, a.clone(), b, a]);
    }
}
