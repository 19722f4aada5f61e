//! Which data the cached values belong to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::cache::ConfigError;

/// The longest name of data, and the longest prefix.
const MAX_NAME: usize = 64;

/// Names the data that values are cached of, so that caches of different data can share one Redis. See
/// [`Cache::set_identity`](crate::Cache::set_identity).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub(crate) state: String,
    pub(crate) lineage: String,
}

impl Identity {
    /// `state` names the data as they are now: another one after they were replaced or rolled back. All names of cached
    /// values begin with it. `lineage` stays the same over such events; the keys of
    /// [`Cache::script`](crate::Cache::script) begin with it.
    ///
    /// # Errors
    /// When a name is longer than 64 bytes, or has other characters than ASCII letters, digits, `-`, `_` and `.`.
    pub fn new(state: impl Into<String>, lineage: impl Into<String>) -> Result<Self, ConfigError> {
        Ok(Self { state: name(state.into())?, lineage: name(lineage.into())? })
    }
}

/// Checks that a name can begin keys: `{` would move Redis Cluster's hash tag, a line break would end an event's name.
pub(crate) fn name(text: String) -> Result<String, ConfigError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.len() <= MAX_NAME && text.bytes().all(fits) {
        Ok(text)
    } else {
        Err(ConfigError(format!(
            "a prefix or an identity has at most {MAX_NAME} ASCII letters, digits, '-', '_' and '.': got {text:?}"
        )))
    }
}

/// The present identity, and how often it has changed.
pub(crate) struct IdentityCell {
    prefix: String,
    /// Another one after each change: the same identity may come back, and what was begun before it went must not be
    /// taken for what was begun after.
    term: AtomicU64,
    known: AtomicBool,
    current: RwLock<Option<Arc<Identity>>>,
}

impl IdentityCell {
    pub(crate) fn new(prefix: String, identity: Option<Identity>) -> Self {
        Self {
            prefix,
            term: AtomicU64::new(0),
            known: AtomicBool::new(identity.is_some()),
            current: RwLock::new(identity.map(Arc::new)),
        }
    }

    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// The term and the identity of it.
    pub(crate) fn current(&self) -> (u64, Option<Arc<Identity>>) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (self.term(), current.clone())
    }

    /// Begins a new term, unless this is the present identity; returns whether the one before was known.
    pub(crate) fn set(&self, identity: Option<Identity>) -> Option<bool> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_deref() == identity.as_ref() {
            return None;
        }
        let was_known = current.is_some();
        self.known.store(identity.is_some(), Ordering::Release);
        *current = identity.map(Arc::new);
        self.term.fetch_add(1, Ordering::AcqRel);
        Some(was_known)
    }

    /// What keys begin with.
    pub(crate) fn scope(&self, name: &str) -> String {
        [self.prefix.as_str(), name].into_iter().filter(|part| !part.is_empty()).flat_map(|part| [part, ":"]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(state: &str) -> Option<Identity> {
        Some(Identity::new(state, "l").unwrap())
    }

    #[test]
    fn a_term_ends_with_each_change_and_the_same_identity_again_is_another_term() {
        let cell = IdentityCell::new("p".to_owned(), None);
        assert!(!cell.is_known());
        let mut terms = vec![cell.term()];
        for (next, was_known) in [(identity("a"), false), (identity("b"), true), (None, true), (identity("a"), false)] {
            assert_eq!(cell.set(next.clone()), Some(was_known));
            assert_eq!(cell.set(next.clone()), None, "nothing changes");
            assert_eq!((cell.is_known(), cell.current().1.as_deref()), (next.is_some(), next.as_ref()));
            assert!(!terms.contains(&cell.term()));
            terms.push(cell.term());
        }
        assert_eq!((cell.scope("a"), cell.scope("")), ("p:a:".to_owned(), "p:".to_owned()));
        assert_eq!(IdentityCell::new(String::new(), None).scope(""), "");
    }

    #[test]
    fn what_cannot_begin_a_key_is_no_name() {
        for bad in ["{a}", "a:b", "a\nb", "a b", "ä", &"a".repeat(65)] {
            assert!(Identity::new(bad, "l").is_err() && Identity::new("s", bad).is_err(), "{bad}");
        }
        assert!(Identity::new("a-b_c.1", "").is_ok());
    }
}
