//! Values that a read returns.

use std::ops::Deref;
use std::sync::Arc;

/// A value that a read returned.
#[derive(Debug, Clone)]
pub enum Loaded<T> {
    /// The value is shared with the cache. Later reads return the same allocation until the value changes.
    Shared(Arc<T>),
    /// The value was read for this call alone.
    Fresh(T),
}

impl<T: Clone> Loaded<T> {
    /// Returns the value. Clones a shared one.
    pub fn into_inner(self) -> T {
        match self {
            Self::Shared(value) => Arc::unwrap_or_clone(value),
            Self::Fresh(value) => value,
        }
    }
}

impl<T> Deref for Loaded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self {
            Self::Shared(value) => value,
            Self::Fresh(value) => value,
        }
    }
}

/// Compares the values, shared or not.
impl<T: PartialEq> PartialEq for Loaded<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
