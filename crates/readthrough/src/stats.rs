//! Counters of a namespace.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)+
        }

        /// Counters of one namespace in this process, since it was opened.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[non_exhaustive]
        pub struct NamespaceStats {
            /// The name of the namespace.
            pub name: &'static str,
            $($(#[$doc])* pub $name: u64,)+
            /// Values in L1.
            pub l1_entries: u64,
            /// Approximate size of the values in L1, in bytes.
            pub l1_bytes: u64,
        }

        impl NamespaceStats {
            /// Returns the counters with their names. `load_micros_max`, a maximum, is among them.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),+].into_iter()
            }
        }

        impl Counters {
            pub(crate) fn snapshot(&self, name: &'static str, l1_entries: u64, l1_bytes: u64) -> NamespaceStats {
                NamespaceStats {
                    name,
                    $($name: self.$name.load(Ordering::Relaxed),)+
                    l1_entries,
                    l1_bytes,
                }
            }
        }
    };
}

counters! {
    /// Reads that the memory of this process answered.
    l1_hits,
    /// Reads that Redis answered.
    l2_hits,
    /// Reads that neither tier answered.
    misses,
    /// Reads that waited for a load of another reader in this process.
    coalesced,
    /// Reads that waited for a load in another process.
    lease_waits,
    /// Calls of loaders.
    loads,
    /// Times that a reader waited for a load in this process longer than the soft time-out.
    soft_timeouts,
    /// Reads that returned an expired value, because the load failed or took too long.
    stale_reads,
    /// Calls of loaders that failed or timed out.
    load_errors,
    /// Total time in loaders, in microseconds.
    load_micros,
    /// Duration of the longest load, in microseconds.
    load_micros_max,
    /// Loads that refreshed a value before it expired.
    early_refreshes,
    /// Loaded values that were rejected because an invalidation came after the load began.
    fills_refused,
    /// Entries and groups that this process invalidated.
    invalidations,
    /// Invalidations that replaced the value instead of removing it.
    puts,
    /// Invalidations that did not reach Redis at once.
    deferred,
    /// Values that L1 evicted to free memory.
    evictions,
    /// Values in Redis that this namespace and version could not decode.
    undecodable,
}

/// A namespace as the cache sees it, whatever the type of its values.
pub(crate) trait StatsSource: Any + Send + Sync {
    fn name(&self) -> &'static str;
    fn stats(&self) -> NamespaceStats;
}

impl Counters {
    /// Counts one call of a loader.
    pub(crate) fn add_load(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        add(&self.loads, 1);
        add(&self.load_micros, micros);
        self.load_micros_max.fetch_max(micros, Ordering::Relaxed);
    }
}

/// Converts the length of a collection.
pub(crate) fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Adds to a counter. The ordering is relaxed because counters synchronise nothing.
#[inline]
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl NamespaceStats {
    /// Returns the number of reads that a tier or the load of another reader answered.
    pub const fn hits(&self) -> u64 {
        self.l1_hits + self.l2_hits + self.coalesced
    }

    /// Returns the share of reads that needed no load of their own, from 0 to 1; `None` before the first read.
    pub fn hit_rate(&self) -> Option<f64> {
        let reads = self.hits() + self.misses;
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 52 bits")]
        (reads > 0).then(|| self.hits() as f64 / reads as f64)
    }
}
