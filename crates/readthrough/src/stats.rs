//! What the cache counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)+
        }

        /// The counts of one namespace since its start, in this process.
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
        pub struct NamespaceStats {
            /// The namespace.
            pub name: &'static str,
            $($(#[$doc])* pub $name: u64,)+
            /// Values in L1 now.
            pub l1_entries: u64,
            /// Their size in bytes, about.
            pub l1_bytes: u64,
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
    /// Reads that the process's own memory answered.
    l1_hits,
    /// Reads that Redis answered.
    l2_hits,
    /// Reads that neither tier answered.
    misses,
    /// Reads that waited for another's load in this process.
    coalesced,
    /// Times that a reader waited for a load in another process.
    lease_waits,
    /// Calls of loaders.
    loads,
    /// Loads that failed.
    load_errors,
    /// Time spent in loaders.
    load_micros,
    /// The longest load.
    load_micros_max,
    /// Loads before the expiry, so that no reader finds the value gone.
    early_refreshes,
    /// Loaded values that were not stored, as an invalidation came after the load had begun.
    fills_refused,
    /// Keys and groups that were invalidated here.
    invalidations,
    /// Those of them in whose place a writer put what it left.
    puts,
    /// Invalidations that Redis could not be told of at once.
    deferred,
    /// Values that L1 dropped for want of room.
    evictions,
    /// Bytes in Redis that were no value of this namespace and version.
    undecodable,
}

impl Counters {
    pub(crate) fn load(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        add(&self.loads, 1);
        add(&self.load_micros, micros);
        self.load_micros_max.fetch_max(micros, Ordering::Relaxed);
    }
}

/// Relaxed: counts order nothing.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl NamespaceStats {
    /// Reads that a tier or another's load answered.
    pub const fn hits(&self) -> u64 {
        self.l1_hits + self.l2_hits + self.coalesced
    }

    /// The share of reads that needed no load of their own, from 0 to 1; `None` before the first read.
    pub fn hit_rate(&self) -> Option<f64> {
        let reads = self.hits() + self.misses;
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 52 bits")]
        (reads > 0).then(|| self.hits() as f64 / reads as f64)
    }
}
