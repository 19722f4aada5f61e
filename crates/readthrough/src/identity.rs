//! The identity of the data that the cached values belong to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::error::ConfigError;

/// The longest name or prefix, in bytes.
const MAX_NAME: usize = 64;

/// Identifies the data that cached values belong to, so that caches of different data can share one Redis.
///
/// See [`Cache::set_identity`](crate::Cache::set_identity).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub(crate) state: String,
    pub(crate) lineage: String,
}

impl Identity {
    /// Creates an identity from two names.
    ///
    /// `state` names the present state of the data and changes when the data are replaced or rolled back. All keys of
    /// cached values begin with it. `lineage` stays the same over such events; the keys of
    /// `Cache::redis_connection` begin with it.
    ///
    /// # Errors
    /// Returns an error if a name is longer than 64 bytes, or has characters other than ASCII letters, digits, `-`, `_`
    /// and `.`.
    pub fn new(state: impl Into<String>, lineage: impl Into<String>) -> Result<Self, ConfigError> {
        Ok(Self { state: validate_name(state.into())?, lineage: validate_name(lineage.into())? })
    }
}

/// Checks that keys can begin with a name: a `{` would move the hash tag of Redis Cluster.
pub(crate) fn validate_name(text: String) -> Result<String, ConfigError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.len() <= MAX_NAME && text.bytes().all(fits) {
        Ok(text)
    } else {
        Err(ConfigError(format!(
            "a prefix or an identity can have up to {MAX_NAME} ASCII letters, digits, '-', '_' and '.': got {text:?}"
        )))
    }
}

/// The current identity and the number of its changes.
pub(crate) struct CurrentIdentity {
    prefix: String,
    /// The number of changes. The same identity may return; operations that began before the change must not be mistaken
    /// for operations that began after.
    term: AtomicU64,
    known: AtomicBool,
    current: RwLock<Option<Arc<Identity>>>,
}

impl CurrentIdentity {
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

    #[inline]
    pub(crate) fn is_known(&self) -> bool {
        self.known.load(Ordering::Acquire)
    }

    /// Returns the term and its identity.
    pub(crate) fn current(&self) -> (u64, Option<Arc<Identity>>) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (self.term(), current.clone())
    }

    /// Begins a new term unless this is the current identity. Returns whether the previous identity was known.
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

    /// Returns the first part of all keys.
    pub(crate) fn key_prefix(&self, name: &str) -> String {
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
    fn each_change_begins_a_term_even_if_the_identity_returns() {
        let cell = CurrentIdentity::new("p".to_owned(), None);
        assert!(!cell.is_known());
        let mut terms = vec![cell.term()];
        for (next, was_known) in [(identity("a"), false), (identity("b"), true), (None, true), (identity("a"), false)] {
            assert_eq!(cell.set(next.clone()), Some(was_known));
            assert_eq!(cell.set(next.clone()), None, "the identity is unchanged");
            assert_eq!((cell.is_known(), cell.current().1.as_deref()), (next.is_some(), next.as_ref()));
            assert!(!terms.contains(&cell.term()));
            terms.push(cell.term());
        }
        assert_eq!((cell.key_prefix("a"), cell.key_prefix("")), ("p:a:".to_owned(), "p:".to_owned()));
        assert_eq!(CurrentIdentity::new(String::new(), None).key_prefix(""), "");
    }

    #[test]
    fn names_that_keys_cannot_begin_with_are_rejected() {
        for bad in ["{a}", "a:b", "a\nb", "a b", "ä", &"a".repeat(65)] {
            assert!(Identity::new(bad, "l").is_err() && Identity::new("s", bad).is_err(), "{bad}");
        }
        assert!(Identity::new("a-b_c.1", "").is_ok());
    }
}
