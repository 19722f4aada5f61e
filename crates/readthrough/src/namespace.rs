//! Values of one type: reading through, and invalidating.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::join_all;
use moka::sync::Cache as Moka;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::cache::{Core, Invalidation, Target};
use crate::entry::{Entry, Header, decode, encode};
use crate::flight::{Flights, Leader, Outcome, Turn, follow};
use crate::key::{self, Key, Names};
use crate::remote::link::{Link, Live};
use crate::remote::wire::{Acquired, Fill, LeaseRequest};
use crate::stamps::Stamp;
use crate::stats::{Counters, NamespaceStats, add};

/// The part of a time to live that is left to chance, so that what was stored together does not expire together.
const JITTER: f64 = 0.1;
/// The first pause of a reader that waits for a load in another process; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(5);
/// What an entry of L1 costs beside its bytes, about.
const OVERHEAD: usize = 160;

/// Settings of a namespace.
///
/// ```
/// use std::time::Duration;
/// use readthrough::NamespaceOptions;
///
/// let profiles = NamespaceOptions::<String>::new("user:profile")
///     .version(2)                            // of the type's shape: keys begin with v2
///     .ttl(Duration::from_secs(300))
///     .l1_bytes(16 << 20);
/// # let _ = profiles;
/// ```
pub struct NamespaceOptions<V> {
    name: &'static str,
    version: u32,
    ttl: Duration,
    negative_ttl: Duration,
    l1_bytes: Option<u64>,
    lease: Duration,
    lease_wait: Duration,
    value_version: Option<fn(&V) -> u64>,
}

impl<V> NamespaceOptions<V> {
    /// A namespace with the defaults that its methods name.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            version: 1,
            ttl: Duration::from_secs(300),
            negative_ttl: Duration::from_secs(10),
            l1_bytes: Some(16 << 20),
            lease: Duration::from_secs(5),
            lease_wait: Duration::from_millis(200),
            value_version: None,
        }
    }

    /// The version of the type's shape, which keys begin with: processes of another version share nothing with
    /// these. Default: 1.
    pub const fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// How long values are kept, less up to a tenth by chance. Default: 300 s.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// How long it is remembered that there is no value. Default: 10 s.
    pub const fn negative_ttl(mut self, ttl: Duration) -> Self {
        self.negative_ttl = ttl;
        self
    }

    /// The bound of L1 in bytes. Default: 16 MiB.
    pub const fn l1_bytes(mut self, bytes: u64) -> Self {
        self.l1_bytes = Some(bytes);
        self
    }

    /// Keeps nothing in this process: each read asks Redis, and none returns what another process has invalidated.
    /// Without Redis nothing is kept then.
    pub const fn without_l1(mut self) -> Self {
        self.l1_bytes = None;
        self
    }

    /// How long a load may take and still be stored. Default: 5 s.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long a reader waits for a load in another process before it loads itself. Default: 200 ms.
    pub const fn lease_wait(mut self, wait: Duration) -> Self {
        self.lease_wait = wait;
        self
    }

    /// A number that grows with each change of a value, such as a row version: what
    /// [`Namespace::put_if_newer`] needs.
    pub const fn value_version(mut self, version: fn(&V) -> u64) -> Self {
        self.value_version = Some(version);
        self
    }
}

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

/// A lease that is given back when its holder goes away.
struct Lease {
    link: Arc<Link>,
    live: Live,
    names: Names,
    token: u64,
    generation: u64,
    held: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.held, tokio::runtime::Handle::try_current()) {
            let (link, live, names, token) =
                (Arc::clone(&self.link), self.live.clone(), self.names.clone(), self.token);
            runtime.spawn(async move { link.call(&live, live.wire.release(&names, token)).await });
        }
    }
}

/// How a lease was asked for.
enum Asked<V> {
    Granted(Lease),
    /// Another process stored a value meanwhile.
    Stored(Arc<Entry<V>>),
    /// Another process loads, or Redis does not answer: what is loaded is not stored.
    No,
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
            let (values, took) = shared.timed(load(open.clone())).await?;
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

    /// Stores what a committed write left, where an older value of this key is stored; otherwise makes the entry
    /// unusable. Either way no reader finds the old value afterwards, and the value of a newer write is not
    /// replaced by that of an older one: [`value_version`](NamespaceOptions::value_version) says which is newer.
    /// Where nothing is stored nothing is put, as that may be what an even newer write left.
    pub async fn put_if_newer(&self, key: &Key, value: V) -> Invalidation {
        let names = Names::new(&self.0.prefix, key);
        let shared = Arc::clone(&self.0);
        // A task of its own, as for invalidations.
        if self.0.core.enabled
            && self.0.core.link.is_some()
            && tokio::spawn(async move { shared.replace(&names, value).await }).await.unwrap_or(false)
        {
            return Invalidation::Complete;
        }
        self.invalidate(key).await
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

    /// Puts a value in the place of an older one in Redis; `false` when there is none, or nothing is known of it.
    async fn replace(&self, names: &Names, value: V) -> bool {
        let Some(version) = self.options.value_version else { return false };
        let Some((link, live)) = self.core.link.as_ref().and_then(|link| Some((link, link.reader()?))) else {
            return false;
        };
        let old = self.fetch(link, &live, &[names]).await.into_iter().next().flatten();
        let Some(old) = old.filter(|old| old.header.version < version(&value)) else { return false };
        let took = Duration::from_micros(old.header.load_micros.into());
        let epoch = live.epoch(self.options.name);
        let (entry, bytes) = self.encoded(epoch, old.header.generation, Some(value), took);
        let ttl = entry.left(self.core.clock.now_ms(), self.options.ttl);
        let expected = old.header.to_bytes();
        if link.call(&live, live.wire.replace(names, &expected, &bytes, ttl)).await != Some(true) {
            return false;
        }
        // Copies in other processes are left to be told of; Redis has the new value.
        let name = std::slice::from_ref(&names.entry);
        let told = link.call(&live, live.wire.announce(name, link.node)).await.is_some();
        self.core.stamps.bump(&names.entry);
        add(&self.counters.invalidations, u64::from(told));
        told
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
            (Asked::No, Some(known)) if self.core.link.is_some() => {
                // Somebody else refreshes it.
                return end(leader, Arc::clone(known), &self.counters.l2_hits);
            }
            (asked, _) => asked,
        };
        match (self.timed(load()).await, known) {
            (Ok((value, took)), known) => {
                let counter = if known.is_some() { &self.counters.early_refreshes } else { &self.counters.misses };
                let entry = self.keep(names, stamp, asked, value, took).await;
                end(leader, entry, counter)
            }
            // Still good.
            (Err(_), Some(known)) => end(leader, known, &self.counters.l2_hits),
            (Err(error), None) => {
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

    /// The entry of these bytes, if it is good in the present epoch and generation.
    fn decoded(&self, live: &Live, bytes: &[u8], generation: u64) -> Option<Arc<Entry<V>>> {
        let Some((header, payload)) = Header::split(bytes) else {
            add(&self.counters.undecodable, 1);
            return None;
        };
        let good = header.epoch == live.epoch(self.options.name)
            && header.generation == generation
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

    async fn acquire(&self, link: &Link, live: &Live, names: &Names, token: u64) -> Option<Acquired> {
        let request = LeaseRequest {
            token,
            ttl: self.options.lease,
            generation: rand::random::<u64>() | 1,
            generation_ttl: self.generation_ttl(),
        };
        link.call(live, live.wire.acquire(names, request)).await
    }

    /// Longer than any entry: a generation that expires takes all its entries with it.
    fn generation_ttl(&self) -> Duration {
        self.options.ttl.max(self.options.negative_ttl) * 2
    }

    /// Asks once for the right to store what is going to be loaded.
    async fn ask(&self, names: &Names) -> Asked<V> {
        let Some((link, live)) = self.core.link.as_ref().and_then(|link| Some((link, link.reader()?))) else {
            return Asked::No;
        };
        let token = rand::random();
        match self.acquire(link, &live, names, token).await {
            Some(Acquired { granted: true, generation, bytes }) => {
                let lease = Lease { link: Arc::clone(link), live, names: names.clone(), token, generation, held: true };
                match bytes.and_then(|bytes| self.decoded(&lease.live, &bytes, generation)) {
                    // Stored between the look and the question; dropping the lease gives it back.
                    Some(entry) if !entry.due(self.core.clock.now_ms()) => Asked::Stored(entry),
                    _ => Asked::Granted(lease),
                }
            }
            Some(Acquired { granted: false, generation, bytes }) => {
                match bytes.and_then(|bytes| self.decoded(&live, &bytes, generation)) {
                    Some(entry) => Asked::Stored(entry),
                    None => Asked::No,
                }
            }
            None => Asked::No,
        }
    }

    /// Asks until it is granted, a value appears, or the wait is over; once for an early refresh.
    async fn ask_patiently(&self, names: &Names, early: bool) -> Asked<V> {
        let began = Instant::now();
        let mut pause = PAUSE;
        loop {
            match self.ask(names).await {
                Asked::Stored(_) if early => return Asked::No,
                Asked::No if !early && self.core.link.as_ref().is_some_and(|link| link.reader().is_some()) => {}
                answer => return answer,
            }
            if began.elapsed() >= self.options.lease_wait {
                return Asked::No;
            }
            add(&self.counters.lease_waits, u64::from(pause == PAUSE));
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// A value as an entry and as bytes: of the header alone when it can't be encoded.
    fn encoded(&self, epoch: u64, generation: u64, value: Option<V>, took: Duration) -> (Entry<V>, Vec<u8>) {
        let header = self.header(epoch, generation, value.as_ref(), took);
        let mut bytes = header.to_bytes().to_vec();
        match value.as_ref().map(encode) {
            Some(Some(payload)) => bytes.extend(payload),
            Some(None) => tracing::error!(namespace = self.options.name, "a value can't be encoded: it is not shared"),
            None => {}
        }
        (Entry { header, value: value.map(Arc::new), bytes: bytes.len() }, bytes)
    }

    fn header(&self, epoch: u64, generation: u64, value: Option<&V>, took: Duration) -> Header {
        let ttl = if value.is_some() { self.options.ttl } else { self.options.negative_ttl };
        let ttl = ttl.mul_f64(1.0 - JITTER * rand::random::<f64>());
        Header {
            absent: value.is_none(),
            epoch,
            generation,
            version: self.options.value_version.zip(value).map_or(0, |(version, value)| version(value)),
            load_micros: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
            expires_ms: self.core.clock.now_ms() + u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 2),
        }
    }

    /// Keeps a loaded value wherever that is allowed.
    async fn keep(
        &self,
        names: &Names,
        stamp: Stamp,
        asked: Asked<V>,
        value: Option<V>,
        took: Duration,
    ) -> Arc<Entry<V>> {
        let Asked::Granted(mut lease) = asked else {
            let entry = Arc::new(self.encoded(0, 0, value, took).0);
            // Without Redis this process is all there is; with it, only what Redis has is copied.
            if self.core.link.is_none() {
                self.copy(names, stamp, &entry);
            }
            return entry;
        };
        let epoch = lease.live.epoch(self.options.name);
        let (entry, bytes) = self.encoded(epoch, lease.generation, value, took);
        let entry = Arc::new(entry);
        let fill = Fill {
            token: lease.token,
            generation: lease.generation,
            bytes: &bytes,
            ttl: entry.left(self.core.clock.now_ms(), self.options.ttl.max(self.options.negative_ttl)),
            generation_ttl: self.generation_ttl(),
        };
        // The fill ends the lease, whatever comes of it.
        lease.held = false;
        match lease.link.call(&lease.live, lease.live.wire.fill(names, fill)).await {
            Some(true) => self.copy(names, stamp, &entry),
            Some(false) => add(&self.counters.fills_refused, 1),
            None => {}
        }
        entry
    }
}

fn number(bytes: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(bytes?).ok()?.parse().ok()
}

fn count(of: usize) -> u64 {
    u64::try_from(of).unwrap_or(u64::MAX)
}
