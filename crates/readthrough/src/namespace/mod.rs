//! The values of one type.
//!
//! - here: the operations of a namespace.
//! - [`options`]: its settings.
//! - [`read`]: reads from the tiers, and loads.
//! - [`lease`]: the permission to store a loaded value.
//! - [`replace`]: values that writers store.

mod lease;
mod options;
mod read;
mod replace;

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use futures_util::future::join_all;
use moka::sync::Cache as Moka;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::core::{Core, Invalidation, Target};
use crate::entry::Entry;
use crate::key::{self, Key, Names};
use crate::single_flight::{LoadOutcome, Role, SingleFlight, wait};
use crate::stats::{Counters, NamespaceStats, StatsSource, add};
use crate::version_table::Versions;
pub use options::NamespaceOptions;
pub use replace::Snapshot;

/// The approximate size of an L1 entry beside its value, in bytes.
const OVERHEAD: usize = 160;

/// The values of one type in a [`Cache`](crate::Cache). Clones share one namespace.
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

/// A copy of an entry in this process.
struct LocalCopy<V> {
    entry: Arc<Entry<V>>,
    /// The versions before the fetch.
    versions: Versions,
    until: Instant,
}

impl<V> Clone for LocalCopy<V> {
    fn clone(&self) -> Self {
        Self { entry: Arc::clone(&self.entry), versions: self.versions, until: self.until }
    }
}

struct Inner<V> {
    core: Arc<Core>,
    options: NamespaceOptions<V>,
    prefix: String,
    l1: Option<Moka<String, LocalCopy<V>>>,
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
    fn new(core: Arc<Core>, options: NamespaceOptions<V>) -> Self {
        let counters = Arc::new(Counters::default());
        let l1 = options.l1_bytes.filter(|_| core.enabled).map(|bytes| {
            let counters = Arc::clone(&counters);
            Moka::builder()
                .max_capacity(bytes)
                .time_to_live(options.ttl)
                .weigher(|name: &String, copy: &LocalCopy<V>| {
                    u32::try_from(name.len() + copy.entry.bytes + OVERHEAD).unwrap_or(u32::MAX)
                })
                .eviction_listener(move |_, _, cause| {
                    if cause == moka::notification::RemovalCause::Size {
                        add(&counters.evictions, 1);
                    }
                })
                .build()
        });
        let prefix = format!("v{}:{}", options.version, options.name);
        Self { core, options, prefix, l1, flights: SingleFlight::new(), counters }
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Namespace<V> {
    pub(crate) fn new(core: Arc<Core>, options: NamespaceOptions<V>) -> Self {
        Self(Arc::new(Inner::new(core, options)))
    }

    pub(crate) fn stats_source(&self) -> Arc<dyn StatsSource> {
        Arc::clone(&self.0) as Arc<dyn StatsSource>
    }

    /// Reads a value. If no tier has the value, loads and stores it.
    ///
    /// `load` returns `None` for a value that does not exist; the absence is stored for the negative time to live. Errors
    /// of `load` are returned and not stored. `load` must read committed writes at once, so not from a replica that lags.
    /// Readers of the same key wait for one load; if it fails, each of them loads.
    ///
    /// # Errors
    /// Returns only errors of `load`. A slow or unreachable Redis causes a load.
    pub async fn get_or_load<E, F, L>(&self, key: &Key, load: F) -> Result<Option<Arc<V>>, E>
    where
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<V>, E>> + Send,
        E: Send,
    {
        let shared = &self.0;
        if !shared.core.enabled {
            return Ok(shared.run_loader(load()).await?.0.map(Arc::new));
        }
        let names = Names::new(&shared.prefix, key);
        let mut waited = false;
        loop {
            let (versions, known) = shared.local_copy(&names);
            if let Some(known) = &known
                && (waited || !known.should_refresh(shared.core.clock.now_ms()))
            {
                add(if waited { &shared.counters.coalesced } else { &shared.counters.l1_hits }, 1);
                return Ok(known.value.clone());
            }
            match shared.flights.join(&names.entry, versions) {
                Role::Leader(leader) => return shared.load_as_leader(&names, versions, known, leader, load).await,
                Role::Waiter(_) if let Some(known) = known => {
                    // Another reader refreshes the value early.
                    add(&shared.counters.l1_hits, 1);
                    return Ok(known.value.clone());
                }
                Role::Waiter(state) => {
                    // A load in progress may have read a value that another process has replaced since. This reader uses
                    // only the outcome of a load that began after the read began: the next load.
                    let is_usable = waited || shared.core.remote.is_none();
                    waited = true;
                    match wait(state).await.as_deref() {
                        Some(LoadOutcome::Found(entry)) if is_usable => {
                            add(&shared.counters.coalesced, 1);
                            return Ok(entry.value.clone());
                        }
                        Some(LoadOutcome::Failed) => {
                            add(&shared.counters.misses, 1);
                            return Ok(shared.run_loader(load()).await?.0.map(Arc::new));
                        }
                        Some(LoadOutcome::Found(_)) | None => {}
                    }
                }
            }
        }
    }

    /// Reads a value from the tiers without loading it. Returns `None` on a miss, and `Some(None)` if the value is known not
    /// to exist. Counts as a hit or a miss.
    pub async fn get(&self, key: &Key) -> Option<Option<Arc<V>>> {
        let shared = &self.0;
        let names = Names::new(&shared.prefix, key);
        let (versions, known) = if shared.core.enabled { shared.local_copy(&names) } else { return None };
        if let Some(known) = known {
            add(&shared.counters.l1_hits, 1);
            return Some(known.value.clone());
        }
        match shared.read_remote(&[&names]).await.into_iter().next().flatten() {
            Some(entry) => {
                shared.store_copy(&names, versions, &entry);
                add(&shared.counters.l2_hits, 1);
                Some(entry.value.clone())
            }
            None => {
                add(&shared.counters.misses, 1);
                None
            }
        }
    }

    /// Reads several values, with one round trip to Redis for the values that L1 lacks, and one load for the values that
    /// both tiers lack.
    ///
    /// `load` receives the indexes of those keys in `keys` and returns a value or `None` for each, in that order; missing
    /// values count as `None`. The result is in the order of `keys`.
    ///
    /// # Errors
    /// Returns only errors of `load`.
    pub async fn get_many_or_load<E, F, L>(&self, keys: &[Key], load: F) -> Result<Vec<Option<Arc<V>>>, E>
    where
        F: FnOnce(Vec<usize>) -> L + Send,
        L: Future<Output = Result<Vec<Option<V>>, E>> + Send,
        E: Send,
    {
        let shared = &self.0;
        let mut all: Vec<(Names, Versions)> = Vec::with_capacity(keys.len());
        let mut found: Vec<Option<Arc<Entry<V>>>> = Vec::with_capacity(keys.len());
        for key in keys {
            let names = Names::new(&shared.prefix, key);
            let (versions, known) = shared.local_copy(&names);
            all.push((names, versions));
            found.push(known);
        }
        let missing = |found: &[Option<Arc<Entry<V>>>]| -> Vec<usize> {
            (0..found.len()).filter(|index| found[*index].is_none()).collect()
        };
        let open = missing(&found);
        add(&shared.counters.l1_hits, count(keys.len() - open.len()));
        let names: Vec<&Names> = open.iter().map(|index| &all[*index].0).collect();
        let stored = shared.read_remote(&names).await;
        for (index, entry) in open.iter().zip(stored) {
            if let Some(entry) = entry {
                shared.store_copy(&all[*index].0, all[*index].1, &entry);
                add(&shared.counters.l2_hits, 1);
                found[*index] = Some(entry);
            }
        }
        let open = missing(&found);
        if !open.is_empty() {
            let leases = join_all(open.iter().map(|index| shared.try_acquire_lease(&all[*index].0))).await;
            let held: Vec<_> = leases.iter().collect();
            let load = shared.with_lease_renewal(&held, load(open.clone()));
            let (values, duration) = shared.run_loader(load).await?;
            let mut values = values.into_iter();
            let fills = open.into_iter().zip(leases).map(|(index, lease)| {
                let (names, versions) = &all[index];
                add(&shared.counters.misses, 1);
                let value = values.next().flatten();
                async move { (index, shared.store(names, *versions, lease, value, duration).await) }
            });
            for (index, entry) in join_all(fills).await {
                found[index] = Some(entry);
            }
        }
        Ok(found.into_iter().map(|entry| entry?.value.clone()).collect())
    }

    /// Invalidates an entry. Call it after the write that changed the value is committed. It runs to completion even if the
    /// returned future is dropped.
    pub async fn invalidate(&self, key: &Key) -> Invalidation {
        self.0.core.invalidate(vec![self.target(key)]).await
    }

    /// Invalidates several entries with one command.
    pub async fn invalidate_many(&self, keys: &[Key]) -> Invalidation {
        self.0.core.invalidate(keys.iter().map(|key| self.target(key)).collect()).await
    }

    /// Invalidates all members of a group in constant time.
    pub async fn invalidate_group(&self, group: impl Display + Send) -> Invalidation {
        let target = self.group_target(group);
        self.0.core.invalidate(vec![target]).await
    }

    /// Returns an entry as a target for [`Cache::invalidate`](crate::Cache::invalidate).
    pub fn target(&self, key: &Key) -> Target {
        Target { name: Names::new(&self.0.prefix, key).entry, counters: Arc::clone(&self.0.counters) }
    }

    /// Returns a group as a target for [`Cache::invalidate`](crate::Cache::invalidate).
    pub fn group_target(&self, group: impl Display) -> Target {
        let name = key::group(&self.0.prefix, &group.to_string());
        Target { name, counters: Arc::clone(&self.0.counters) }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
