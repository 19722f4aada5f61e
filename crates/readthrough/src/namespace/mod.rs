//! Values of one type: reading through, and invalidating.
//!
//! - here: what is read, from which tier.
//! - [`options`]: how long, how much, under which name.
//! - [`fill`]: the right to store what was loaded.
//! - [`put`]: what writers store themselves.

mod fill;
mod options;
mod put;

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::join_all;
use moka::sync::Cache as Moka;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::cache::{Core, Invalidation, Target};
use crate::entry::{Entry, Header, decode};
use crate::flight::{Flights, Leader, Outcome, Turn, follow};
use crate::key::{self, Key, Names};
use crate::remote::link::{Link, Live};
use crate::stamps::Stamp;
use crate::stats::{Counters, NamespaceStats, add};
use fill::Asked;
pub use options::NamespaceOptions;
pub use put::Before;

/// What an entry of L1 costs beside its bytes, about.
const OVERHEAD: usize = 160;

/// The values of one type. Cheap to clone.
pub struct Namespace<V>(pub(crate) Arc<Shared<V>>);

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

/// What the cache asks of its namespaces, whatever their types.
pub(crate) trait Report: Send + Sync {
    fn name(&self) -> &'static str;
    fn stats(&self) -> NamespaceStats;
}

/// A copy in this process.
struct Copied<V> {
    entry: Arc<Entry<V>>,
    stamp: Stamp,
    until: Instant,
}

impl<V> Clone for Copied<V> {
    fn clone(&self) -> Self {
        Self { entry: Arc::clone(&self.entry), stamp: self.stamp, until: self.until }
    }
}

pub(crate) struct Shared<V> {
    core: Arc<Core>,
    options: NamespaceOptions<V>,
    prefix: String,
    l1: Option<Moka<String, Copied<V>>>,
    flights: Flights<V>,
    counters: Arc<Counters>,
}

impl<V: Send + Sync + 'static> Report for Shared<V> {
    fn name(&self) -> &'static str {
        self.options.name
    }

    fn stats(&self) -> NamespaceStats {
        let (entries, bytes) = self.l1.as_ref().map_or((0, 0), |l1| (l1.entry_count(), l1.weighted_size()));
        self.counters.snapshot(self.options.name, entries, bytes)
    }
}

impl<V: Send + Sync + 'static> Shared<V> {
    pub(crate) fn new(core: Arc<Core>, options: NamespaceOptions<V>) -> Self {
        let counters = Arc::new(Counters::default());
        let l1 = options.l1_bytes.filter(|_| core.enabled).map(|bytes| {
            let counters = Arc::clone(&counters);
            Moka::builder()
                .max_capacity(bytes)
                .time_to_live(options.ttl)
                .weigher(|name: &String, copy: &Copied<V>| {
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
        Self { core, options, prefix, l1, flights: Flights::new(), counters }
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Namespace<V> {
    /// Reads a value; where no tier has it, loads it and keeps it.
    ///
    /// `load` gives `None` for a value that does not exist, which is kept too, for the negative time to live. Its
    /// errors are returned and never kept. It should read where writes are seen as soon as they are committed: not
    /// from a replica that lags. Readers of the same key wait for one load; when it fails, each of them tries.
    ///
    /// # Errors
    /// Those of `load`, and none else: a Redis that is slow or gone means a load.
    pub async fn get_or_load<E, F, L>(&self, key: &Key, load: F) -> Result<Option<Arc<V>>, E>
    where
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<V>, E>> + Send,
        E: Send,
    {
        let shared = &self.0;
        if !shared.core.enabled {
            return Ok(shared.timed(load()).await?.0.map(Arc::new));
        }
        let names = Names::new(&shared.prefix, key);
        let mut waited = false;
        loop {
            let (stamp, known) = shared.copied(&names);
            if let Some(known) = &known
                && (waited || !known.due(shared.core.clock.now_ms()))
            {
                add(if waited { &shared.counters.coalesced } else { &shared.counters.l1_hits }, 1);
                return Ok(known.value.clone());
            }
            match shared.flights.join(&names.entry, stamp) {
                Turn::Lead(leader) => return shared.lead(&names, stamp, known, leader, load).await,
                Turn::Follow(_) if let Some(known) = known => {
                    // Another reader refreshes it early.
                    add(&shared.counters.l1_hits, 1);
                    return Ok(known.value.clone());
                }
                Turn::Follow(state) => {
                    // One that was under way before may have read what another process has replaced since: only
                    // that of a load which began after this reader did is its answer, and the next is one.
                    let answers = waited || shared.core.link.is_none();
                    waited = true;
                    match follow(state).await.as_deref() {
                        Some(Outcome::Found(entry)) if answers => {
                            add(&shared.counters.coalesced, 1);
                            return Ok(entry.value.clone());
                        }
                        Some(Outcome::Failed) => {
                            add(&shared.counters.misses, 1);
                            return Ok(shared.timed(load()).await?.0.map(Arc::new));
                        }
                        Some(Outcome::Found(_)) | None => {}
                    }
                }
            }
        }
    }

    /// What is kept of a value, without loading it; `None` when nothing is known, `Some(None)` when it is known that
    /// there is no value. Counts as a hit or a miss.
    pub async fn get(&self, key: &Key) -> Option<Option<Arc<V>>> {
        let shared = &self.0;
        let names = Names::new(&shared.prefix, key);
        let (stamp, known) = if shared.core.enabled { shared.copied(&names) } else { return None };
        if let Some(known) = known {
            add(&shared.counters.l1_hits, 1);
            return Some(known.value.clone());
        }
        match shared.stored(&[&names]).await.into_iter().next().flatten() {
            Some(entry) => {
                shared.copy(&names, stamp, &entry);
                add(&shared.counters.l2_hits, 1);
                Some(entry.value.clone())
            }
            None => {
                add(&shared.counters.misses, 1);
                None
            }
        }
    }

    /// Reads several values: one round trip to Redis for those that L1 has not, and one load for those that
    /// neither tier has. `load` gets their places in `keys` and gives a value or `None` for each, in that order;
    /// what it leaves out counts as `None`. The answer is in the order of `keys`.
    ///
    /// # Errors
    /// Those of `load`, and none else.
    pub async fn get_many_or_load<E, F, L>(&self, keys: &[Key], load: F) -> Result<Vec<Option<Arc<V>>>, E>
    where
        F: FnOnce(Vec<usize>) -> L + Send,
        L: Future<Output = Result<Vec<Option<V>>, E>> + Send,
        E: Send,
    {
        let shared = &self.0;
        let mut all: Vec<(Names, Stamp)> = Vec::with_capacity(keys.len());
        let mut found: Vec<Option<Arc<Entry<V>>>> = Vec::with_capacity(keys.len());
        for key in keys {
            let names = Names::new(&shared.prefix, key);
            let (stamp, known) = shared.copied(&names);
            all.push((names, stamp));
            found.push(known);
        }
        let missing = |found: &[Option<Arc<Entry<V>>>]| -> Vec<usize> {
            (0..found.len()).filter(|place| found[*place].is_none()).collect()
        };
        let open = missing(&found);
        add(&shared.counters.l1_hits, count(keys.len() - open.len()));
        let names: Vec<&Names> = open.iter().map(|place| &all[*place].0).collect();
        let stored = shared.stored(&names).await;
        for (place, entry) in open.iter().zip(stored) {
            if let Some(entry) = entry {
                shared.copy(&all[*place].0, all[*place].1, &entry);
                add(&shared.counters.l2_hits, 1);
                found[*place] = Some(entry);
            }
        }
        let open = missing(&found);
        if !open.is_empty() {
            let asked = join_all(open.iter().map(|place| shared.ask(&all[*place].0))).await;
            let leases: Vec<_> = asked.iter().collect();
            let (values, took) = shared.timed(shared.renewing(&leases, load(open.clone()))).await?;
            let mut values = values.into_iter();
            let fills = open.into_iter().zip(asked).map(|(place, asked)| {
                let (names, stamp) = &all[place];
                add(&shared.counters.misses, 1);
                let value = values.next().flatten();
                async move { (place, shared.keep(names, *stamp, asked, value, took).await) }
            });
            for (place, entry) in join_all(fills).await {
                found[place] = Some(entry);
            }
        }
        Ok(found.into_iter().map(|entry| entry?.value.clone()).collect())
    }

    /// Makes an entry unusable: to be called after the write that changed it is committed. Runs to its end even
    /// when the returned future is dropped.
    pub async fn invalidate(&self, key: &Key) -> Invalidation {
        self.0.core.invalidate(vec![self.target(key)]).await
    }

    /// Makes several entries unusable, with one command.
    pub async fn invalidate_many(&self, keys: &[Key]) -> Invalidation {
        self.0.core.invalidate(keys.iter().map(|key| self.target(key)).collect()).await
    }

    /// Makes all members of a group unusable, in one step however many there are.
    pub async fn invalidate_group(&self, group: impl Display + Send) -> Invalidation {
        let target = self.group_target(group);
        self.0.core.invalidate(vec![target]).await
    }

    /// An entry, for [`Cache::invalidate`](crate::Cache::invalidate).
    pub fn target(&self, key: &Key) -> Target {
        Target { name: Names::new(&self.0.prefix, key).entry, counters: Arc::clone(&self.0.counters) }
    }

    /// A group, for [`Cache::invalidate`](crate::Cache::invalidate).
    pub fn group_target(&self, group: impl Display) -> Target {
        let name = key::group(&self.0.prefix, &group.to_string());
        Target { name, counters: Arc::clone(&self.0.counters) }
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Shared<V> {
    /// The stamp of this moment, and the copy in this process, if it may be used.
    fn copied(&self, names: &Names) -> (Stamp, Option<Arc<Entry<V>>>) {
        // Trust first: it says that what was invalidated up to some moment has moved the counters already. Asked
        // afterwards, it could have been renewed, together with a counter, after the counter was read.
        let trusted = self.core.trusts_l1();
        let stamp = self.core.stamps.read(&names.entry, names.group.as_deref());
        let copy = self.l1.as_ref().filter(|_| trusted).and_then(|l1| l1.get(&names.entry));
        let usable = copy.filter(|copy| copy.stamp == stamp && copy.until > Instant::now());
        (stamp, usable.map(|copy| copy.entry))
    }

    /// Whether nothing was invalidated here since the stamp was read.
    fn is_current(&self, names: &Names, stamp: Stamp) -> bool {
        self.core.stamps.read(&names.entry, names.group.as_deref()) == stamp
    }

    /// Keeps a copy in this process, with the stamp from before it was fetched.
    fn copy(&self, names: &Names, stamp: Stamp, entry: &Arc<Entry<V>>) {
        if let Some(l1) = &self.l1 {
            let until = Instant::now() + entry.left(self.core.clock.now_ms(), self.options.ttl);
            l1.insert(names.entry.clone(), Copied { entry: Arc::clone(entry), stamp, until });
        }
    }

    async fn timed<T, E>(&self, load: impl Future<Output = Result<T, E>>) -> Result<(T, Duration), E> {
        let began = Instant::now();
        let loaded = load.await;
        let took = began.elapsed();
        self.counters.load(took);
        match loaded {
            Ok(value) => Ok((value, took)),
            Err(error) => {
                add(&self.counters.load_errors, 1);
                Err(error)
            }
        }
    }

    /// What the first of several readers of a key does. `known` is what it may return if the load fails.
    async fn lead<E, F, L>(
        &self,
        names: &Names,
        stamp: Stamp,
        mut known: Option<Arc<Entry<V>>>,
        leader: Leader<V>,
        load: F,
    ) -> Result<Option<Arc<V>>, E>
    where
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<V>, E>> + Send,
        E: Send,
    {
        let end = |leader: Leader<V>, entry: Arc<Entry<V>>, counter: &AtomicU64| {
            add(counter, 1);
            let value = entry.value.clone();
            leader.end(Outcome::Found(entry));
            Ok(value)
        };
        if known.is_none()
            && let Some(entry) = self.stored(&[names]).await.into_iter().next().flatten()
        {
            self.copy(names, stamp, &entry);
            if !entry.due(self.core.clock.now_ms()) {
                return end(leader, entry, &self.counters.l2_hits);
            }
            known = Some(entry);
        }
        let asked = match (self.ask_patiently(names, known.is_some()).await, &known) {
            (Asked::Stored(entry), None) => {
                self.copy(names, stamp, &entry);
                return end(leader, entry, &self.counters.l2_hits);
            }
            (Asked::No, Some(known)) if self.core.link.is_some() && self.is_current(names, stamp) => {
                // Somebody else refreshes it.
                return end(leader, Arc::clone(known), &self.counters.l2_hits);
            }
            (asked, _) => asked,
        };
        match (self.timed(self.renewing(&[&asked], load())).await, known) {
            (Ok((value, took)), known) => {
                let counter = if known.is_some() { &self.counters.early_refreshes } else { &self.counters.misses };
                let entry = self.keep(names, stamp, asked, value, took).await;
                end(leader, entry, counter)
            }
            // Still good.
            (Err(_), Some(known)) if self.is_current(names, stamp) => end(leader, known, &self.counters.l2_hits),
            (Err(error), _) => {
                add(&self.counters.misses, 1);
                leader.end(Outcome::Failed);
                Err(error)
            }
        }
    }

    /// What Redis has, if it may be read.
    async fn stored(&self, names: &[&Names]) -> Vec<Option<Arc<Entry<V>>>> {
        match self.core.link.as_ref().and_then(|link| Some((link, link.reader()?))) {
            Some((link, live)) if !names.is_empty() => self.fetch(link, &live, names).await,
            _ => names.iter().map(|_| None).collect(),
        }
    }

    async fn fetch(&self, link: &Link, live: &Live, names: &[&Names]) -> Vec<Option<Arc<Entry<V>>>> {
        let keys: Vec<&str> =
            names.iter().flat_map(|names| [Some(names.entry.as_str()), names.group.as_deref()]).flatten().collect();
        let mut values = link.call(live, live.wire.get(&keys)).await.unwrap_or_default().into_iter();
        names
            .iter()
            .map(|names| {
                let bytes = values.next().flatten();
                let generation = match &names.group {
                    // Numbers are stored as text: what no group has is no generation.
                    Some(_) => number(values.next().flatten().as_deref()),
                    None => Some(0),
                };
                self.decoded(live, &bytes?, generation?)
            })
            .collect()
    }

    /// The entry of these bytes, if it is good in the present epoch and generation; any is good for an entry by itself (0).
    fn decoded(&self, live: &Live, bytes: &[u8], generation: u64) -> Option<Arc<Entry<V>>> {
        let Some((header, payload)) = Header::split(bytes) else {
            add(&self.counters.undecodable, 1);
            return None;
        };
        let good = self.core.link.as_ref().is_some_and(|link| link.is_current(live))
            && header.epoch == live.epoch(self.options.name)
            && (generation == 0 || header.generation == generation)
            && header.expires_ms > self.core.clock.now_ms();
        if !good {
            return None;
        }
        let value = if header.absent { None } else { decode(payload).map(Arc::new) };
        if value.is_none() && !header.absent {
            add(&self.counters.undecodable, 1);
            return None;
        }
        Some(Arc::new(Entry { header, value, bytes: bytes.len() }))
    }
}

fn number(bytes: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(bytes?).ok()?.parse().ok()
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}
