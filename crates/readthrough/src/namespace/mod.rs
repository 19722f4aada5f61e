//! The values of one type: reads and invalidations.
//!
//! - here: the namespace and its copies in this process.
//! - [`options`]: the settings.
//! - [`read`]: reads of one value; [`read_many`]: of several.
//! - [`second_tier`]: entries in the second tier.
//! - [`lease`]: leases, and what a load stores.
//! - [`replace`]: values that writers store.

mod lease;
mod options;
mod read;
mod read_many;
mod replace;
mod second_tier;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use moka::sync::Cache as Moka;
use tokio::time::Instant;

use crate::core::{Core, Invalidation, Target};
use crate::entry::Entry;
use crate::key::{self, Key, KeyPart, Names, PrefixHashes};
use crate::single_flight::SingleFlight;
use crate::stats::{Counters, NamespaceStats, StatsSource, add};
use crate::version_table::Versions;
pub use options::NamespaceOptions;
pub use replace::Snapshot;

/// The approximate size of an entry of L1 without the bytes of its key and its value.
const OVERHEAD: usize = 208;
/// The upper bound of all times to live: ten years.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The values of one type. Cheap to clone.
pub struct Namespace<V>(Arc<Inner<V>>);

impl<V> Clone for Namespace<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> std::fmt::Debug for Namespace<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Namespace").field(&self.0.prefix).finish()
    }
}

/// The copies of an entry in this process at one moment.
pub(super) struct Local<V> {
    pub(super) looked_up: Instant,
    /// The versions of the entry's names at this moment.
    pub(super) versions: Versions,
    /// The copy, unless it is expired or unusable.
    pub(super) fresh: Option<Entry<V>>,
    /// The expired copy, if the namespace allows stale values.
    pub(super) stale: Option<Entry<V>>,
}

/// An entry of L1. Each hit clones it, so the value is the only other memory that it refers to, except for tags.
struct LocalCopy<V> {
    entry: Entry<V>,
    versions: Versions,
    /// From then on each reader decides whether it refreshes the entry early.
    refresh_from: Instant,
    expires_at: Instant,
}

impl<V> Clone for LocalCopy<V> {
    #[inline]
    fn clone(&self) -> Self {
        Self { entry: self.entry.clone(), versions: self.versions.clone(), ..*self }
    }
}

/// The result of a lookup in L1.
enum Lookup<V> {
    /// A value that needs no early refresh.
    Hit(Option<Arc<V>>),
    Other(Local<V>),
}

struct Inner<V> {
    core: Arc<Core>,
    options: NamespaceOptions<V>,
    prefix: String,
    prefix_hashes: PrefixHashes,
    /// Its hasher has a random seed, so that nobody can choose keys that collide.
    l1: Option<Moka<Key, LocalCopy<V>, RandomState>>,
    flights: SingleFlight<V>,
    counters: Arc<Counters>,
}

impl<V: Send + Sync + 'static> StatsSource for Inner<V> {
    fn name(&self) -> &'static str {
        self.options.name
    }

    fn stats(&self) -> NamespaceStats {
        let (entries, bytes) = self.l1.as_ref().map_or((0, 0), |l1| (l1.entry_count(), l1.weighted_size()));
        self.counters.snapshot(self.options.name, entries, bytes)
    }
}

impl<V: Send + Sync + 'static> Inner<V> {
    fn new(core: Arc<Core>, mut options: NamespaceOptions<V>) -> Self {
        let max_ttl = options.longest_ttl();
        for ttl in [&mut options.ttl, &mut options.negative_ttl, &mut options.stale_if_error] {
            *ttl = (*ttl).min(MAX_TTL);
        }
        options.max_ttl = Some(max_ttl.min(MAX_TTL));
        let counters = Arc::new(Counters::default());
        let l1 = options.l1_bytes.filter(|_| core.enabled).map(|bytes| {
            let counters = Arc::clone(&counters);
            Moka::builder()
                .max_capacity(bytes)
                .time_to_live(options.longest_ttl() + options.stale_if_error)
                .weigher(|key: &Key, copy: &LocalCopy<V>| {
                    u32::try_from(key.length() + copy.entry.bytes + OVERHEAD).unwrap_or(u32::MAX)
                })
                .eviction_listener(move |_, _, cause| {
                    if cause == moka::notification::RemovalCause::Size {
                        add(&counters.evictions, 1);
                    }
                })
                .build_with_hasher(RandomState::default())
        });
        let prefix = format!("v{}:{}", options.version, options.name);
        let prefix_hashes = PrefixHashes::new(&prefix);
        Self { core, options, prefix, prefix_hashes, l1, flights: SingleFlight::new(), counters }
    }

    fn names(&self, key: &Key) -> Names {
        Names::new(&self.prefix, key)
    }

    /// Returns the copy in this process, which may be expired or invalidated. `now` is a moment after the read began.
    #[inline]
    fn copy_of(&self, key: &Key, now: Instant) -> Option<LocalCopy<V>> {
        // The trust first: it says that invalidations up to some moment have incremented the versions already. Read after
        // the versions, it could have been renewed, together with a version, after the version was read.
        self.l1.as_ref().filter(|_| self.core.is_l1_fresh(now))?.get(key)
    }

    /// Looks up an entry in L1, and counts a hit.
    #[inline]
    fn look_up(&self, key: &Key) -> Lookup<V> {
        let now = Instant::now();
        match self.copy_of(key, now) {
            Some(copy) if now < copy.refresh_from && self.is_current(&copy.versions) => {
                add(&self.counters.l1_hits, 1);
                Lookup::Hit(copy.entry.value)
            }
            copy => Lookup::Other(self.local_of(key, copy, now)),
        }
    }

    /// Returns the copies in this process. `now` is a moment after the read began.
    fn local(&self, key: &Key, now: Instant) -> Local<V> {
        self.local_of(key, self.copy_of(key, now), now)
    }

    #[cold]
    fn local_of(&self, key: &Key, copy: Option<LocalCopy<V>>, now: Instant) -> Local<V> {
        let copy = copy.filter(|copy| self.is_current(&copy.versions));
        // Those of the copy, because an invalidation since its check must count as one that came later.
        let versions = copy.as_ref().map(|copy| copy.versions.clone());
        let versions = versions.unwrap_or_else(|| self.versions(key));
        let (fresh, stale) = match copy {
            Some(copy) if copy.expires_at > now => (Some(copy.entry), None),
            Some(copy) if copy.expires_at + self.options.stale_if_error > now => (None, Some(copy.entry)),
            _ => (None, None),
        };
        Local { looked_up: now, versions, fresh, stale }
    }

    fn versions(&self, key: &Key) -> Versions {
        self.core.versions.read(&self.prefix_hashes, key)
    }

    /// Returns whether nothing has been invalidated here since the versions were read.
    #[inline]
    fn is_current(&self, versions: &Versions) -> bool {
        self.core.versions.is_current(versions)
    }

    /// Copies an entry into L1, with the versions from before it was fetched.
    fn copy(&self, key: &Key, versions: &Versions, entry: &Entry<V>) {
        let left = entry.left(self.core.clock.now_ms(), self.options.longest_ttl());
        if let Some(l1) = self.l1.as_ref().filter(|_| !left.is_zero()) {
            let now = Instant::now();
            let (expires_at, refresh_from) = (now + left, now + left.saturating_sub(entry.longest_refresh()));
            l1.insert(
                key.clone(),
                LocalCopy { entry: entry.clone(), versions: versions.clone(), refresh_from, expires_at },
            );
        }
    }

    async fn timed<T, E>(&self, load: impl Future<Output = Result<T, E>>) -> Result<(T, Duration), E> {
        let began = Instant::now();
        let loaded = load.await;
        let took = began.elapsed();
        self.counters.add_load(took);
        match loaded {
            Ok(value) => Ok((value, took)),
            Err(error) => {
                add(&self.counters.load_errors, 1);
                Err(error)
            }
        }
    }
}

impl<V: Send + Sync + 'static> Namespace<V> {
    pub(crate) fn new(core: Arc<Core>, options: NamespaceOptions<V>) -> Self {
        Self(Arc::new(Inner::new(core, options)))
    }

    /// Returns an open namespace, if it has this type and these options.
    pub(crate) fn reopen(open: Arc<dyn Any + Send + Sync>, options: &NamespaceOptions<V>) -> Option<Self> {
        open.downcast::<Inner<V>>().ok().filter(|inner| inner.options.is_like(options)).map(Self)
    }

    pub(crate) fn stats_source(&self) -> Arc<dyn StatsSource> {
        Arc::clone(&self.0) as Arc<dyn StatsSource>
    }

    /// Invalidates an entry. To be called after the write that changed the entry is committed. Runs to its end even if
    /// the returned future is dropped.
    pub async fn invalidate(&self, key: &Key) -> Invalidation {
        self.0.core.invalidate(vec![self.target(key)]).await
    }

    /// Invalidates several entries with one command.
    pub async fn invalidate_many(&self, keys: &[Key]) -> Invalidation {
        self.0.core.invalidate(keys.iter().map(|key| self.target(key)).collect()).await
    }

    /// Invalidates all members of a group, and all entries that have the group as a [tag](Key::tag), in one step
    /// however many there are.
    pub async fn invalidate_group(&self, group: impl Into<KeyPart> + Send) -> Invalidation {
        let target = self.group_target(group);
        self.0.core.invalidate(vec![target]).await
    }

    /// Returns an entry as a target of [`Cache::invalidate`](crate::Cache::invalidate).
    pub fn target(&self, key: &Key) -> Target {
        Target { name: self.0.names(key).entry, counters: Arc::clone(&self.0.counters) }
    }

    /// Returns a group or a tag as a target of [`Cache::invalidate`](crate::Cache::invalidate).
    pub fn group_target(&self, group: impl Into<KeyPart>) -> Target {
        let name = key::group(&self.0.prefix, &group.into());
        Target { name, counters: Arc::clone(&self.0.counters) }
    }
}
