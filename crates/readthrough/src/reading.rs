//! Values as loaders return them and as readers receive them.

use std::sync::Arc;
use std::time::Duration;

/// A value from a loader, with its time to live.
///
/// ```
/// use std::time::Duration;
/// use readthrough::Loaded;
///
/// let token = Loaded::new(Some("token")).ttl(Duration::from_secs(60));
/// let absent = Loaded::from(None::<&str>);
/// # let _ = (token, absent);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded<V> {
    pub(crate) value: Option<V>,
    pub(crate) ttl: Option<Duration>,
}

impl<V> Loaded<V> {
    /// Creates a value that lives as long as the namespace says; `None` for a value that does not exist.
    pub const fn new(value: Option<V>) -> Self {
        Self { value, ttl: None }
    }

    /// Sets the time to live of this value, at most the namespace's [`max_ttl`](crate::NamespaceOptions::max_ttl). With
    /// zero the value is not cached: only the readers that waited for this load share it.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }
}

impl<V> From<Option<V>> for Loaded<V> {
    fn from(value: Option<V>) -> Self {
        Self::new(value)
    }
}

/// The result of [`Namespace::get_or_load_entry`](crate::Namespace::get_or_load_entry).
#[derive(Debug, PartialEq, Eq)]
pub enum Reading<V> {
    /// A value that has not expired; `None` for one that does not exist.
    Fresh(Option<Arc<V>>),
    /// An expired value: the load failed, and the namespace allows
    /// [stale values](crate::NamespaceOptions::stale_if_error). No invalidation of it was completed before the read began.
    Stale {
        /// The value; `None` for one that did not exist.
        value: Option<Arc<V>>,
        /// The time since it expired.
        expired_for: Duration,
    },
}

impl<V> Reading<V> {
    /// Returns the value, fresh or stale.
    pub fn into_value(self) -> Option<Arc<V>> {
        match self {
            Self::Fresh(value) | Self::Stale { value, .. } => value,
        }
    }

    /// Returns whether the value has expired.
    pub const fn is_stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }
}
