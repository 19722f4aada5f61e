//! The cache, which all namespaces share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::identity::{Identity, IdentityCell, name};
use crate::namespace::{Namespace, NamespaceOptions, Report, Shared};
use crate::remote::fault::RedisFault;
use crate::remote::link::{Keeper, Link};
use crate::remote::redis::Endpoint;
use crate::remote::wire::Connect;
use crate::stamps::Stamps;
use crate::stats::{Counters, NamespaceStats, add};

/// The second tier can't be used as it was configured.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// What an invalidation reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Invalidation {
    /// No process finds the old value in Redis any more, and this one nowhere.
    Complete,
    /// This process finds the old value nowhere. Redis could not be told; it is told as soon as it answers, and
    /// this process does not read from it before.
    Deferred,
}

/// Something to invalidate: an entry or a group of a namespace. Made by [`Namespace::target`] and
/// [`Namespace::group_target`], for [`Cache::invalidate`].
#[derive(Debug, Clone)]
pub struct Target {
    pub(crate) name: String,
    pub(crate) counters: Arc<Counters>,
}

/// Settings of a cache; [`CacheBuilder::build`] makes it.
#[derive(Debug)]
pub struct CacheBuilder {
    redis: Option<String>,
    redis_timeout: Duration,
    l1_staleness: Duration,
    enabled: bool,
    prefix: String,
    identity: Option<Identity>,
}

impl CacheBuilder {
    /// Shares values through a Redis (or Valkey): `redis://[user:password@]host[:port][/database]`, `rediss://` with
    /// TLS, `redis+sentinel://host:port,host:port/master`, `redis+cluster://host:port,host:port`. Default: none, and
    /// values are kept in this process alone.
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.redis = Some(url.into());
        self
    }

    /// How long a command may take before Redis counts as down. Default: 50 ms.
    pub const fn redis_timeout(mut self, timeout: Duration) -> Self {
        self.redis_timeout = timeout;
        self
    }

    /// How long values in this process may be used without word from Redis. Default: 250 ms.
    pub const fn l1_staleness(mut self, bound: Duration) -> Self {
        self.l1_staleness = bound;
        self
    }

    /// Whether anything is cached at all; with `false` every read loads. Default: `true`.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// What all keys in Redis begin with, before the identity: for programs that share a Redis. Default: nothing.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Which data the values are of; `None` until [`Cache::set_identity`] tells. While it is not known, every read loads and
    /// nothing is stored. Default: an identity without a name, for a Redis that serves one set of data.
    pub fn identity(mut self, identity: Option<Identity>) -> Self {
        self.identity = identity;
        self
    }

    /// Checks what [`build`](Self::build) refuses, without a runtime.
    ///
    /// # Errors
    /// When the URL can't be read, or the prefix can't begin a key.
    pub fn check(&self) -> Result<(), ConfigError> {
        name(self.prefix.clone())?;
        self.endpoint().map(drop)
    }

    fn endpoint(&self) -> Result<Option<Endpoint>, ConfigError> {
        let parse = |url| Endpoint::parse(url).map_err(|failure| ConfigError(failure.to_string()));
        self.redis.as_deref().filter(|_| self.enabled).map(parse).transpose()
    }

    /// Makes the cache. It connects in the background: until Redis answers, reads load.
    ///
    /// # Errors
    /// When the URL can't be read, or the prefix can't begin a key.
    ///
    /// # Panics
    /// With Redis, outside a tokio runtime.
    pub fn build(mut self) -> Result<Cache, ConfigError> {
        self.prefix = name(self.prefix)?;
        let endpoint = self.endpoint()?;
        Ok(self.connected(endpoint.map(|endpoint| Box::new(endpoint) as Box<dyn Connect>)))
    }

    /// A cache whose second tier is behind these connections.
    pub(crate) fn connected(self, connect: Option<Box<dyn Connect>>) -> Cache {
        let stamps = Arc::new(Stamps::new());
        let identity = Arc::new(IdentityCell::new(self.prefix, self.identity));
        let (link, keeper) = connect
            .map(|connect| {
                let (stamps, identity) = (Arc::clone(&stamps), Arc::clone(&identity));
                Link::start(connect, stamps, identity, self.redis_timeout, self.l1_staleness)
            })
            .unzip();
        Cache(Arc::new(Inner {
            core: Arc::new(Core { stamps, identity, link, enabled: self.enabled, clock: Clock::new() }),
            _keeper: keeper,
            namespaces: Mutex::default(),
        }))
    }
}

/// What the cache and its namespaces share.
pub(crate) struct Core {
    pub(crate) stamps: Arc<Stamps>,
    pub(crate) identity: Arc<IdentityCell>,
    pub(crate) link: Option<Arc<Link>>,
    pub(crate) enabled: bool,
    pub(crate) clock: Clock,
}

impl Core {
    /// Whether values in this process may be used.
    pub(crate) fn trusts_l1(&self) -> bool {
        self.identity.is_known() && self.link.as_ref().is_none_or(|link| link.trusts_l1())
    }

    /// Makes names unusable everywhere.
    pub(crate) async fn invalidate(self: &Arc<Self>, targets: Vec<Target>) -> Invalidation {
        let Some(link) = self.link.clone().filter(|_| self.enabled) else {
            for target in targets {
                self.stamps.bump(&target.name);
                add(&target.counters.invalidations, 1);
            }
            return Invalidation::Complete;
        };
        let core = Arc::clone(self);
        // A task of its own: a caller who goes away must not leave it half done.
        let told = tokio::spawn(async move {
            let names = targets.iter().map(|target| target.name.clone()).collect();
            let told = link.invalidate(names).await;
            // Only now: between the write and this, a reader may have taken the old value from Redis once more.
            for target in &targets {
                core.stamps.bump(&target.name);
                add(&target.counters.invalidations, 1);
                add(&target.counters.deferred, u64::from(!told));
            }
            told
        });
        if told.await.unwrap_or(false) { Invalidation::Complete } else { Invalidation::Deferred }
    }
}

/// Milliseconds since 1970 that move with tokio's clock, which tests can hold.
pub(crate) struct Clock {
    began: Instant,
    began_ms: u64,
}

impl Clock {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), began_ms: u64::try_from(since.as_millis()).unwrap_or(0) }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.began_ms + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0)
    }
}

/// A cache of two tiers: this process's memory (L1), and Redis (L2) where one is configured. Cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    _keeper: Option<Keeper>,
    namespaces: Mutex<Vec<Arc<dyn Report>>>,
}

impl Cache {
    /// Begins with the defaults.
    pub fn builder() -> CacheBuilder {
        CacheBuilder {
            redis: None,
            redis_timeout: Duration::from_millis(50),
            l1_staleness: Duration::from_millis(250),
            enabled: true,
            prefix: String::new(),
            identity: Some(Identity { state: String::new(), lineage: String::new() }),
        }
    }

    /// Tells which data the values are of from now on; `None` when that is not known. To be called before the first
    /// read of data of which it is not known that they are those of before: as soon as a connection to them is
    /// made. Returns when no read that begins afterwards finds a value of other data. A value whose load began before is
    /// not stored, even if the same identity has come back meanwhile.
    ///
    /// Other processes have to be told by themselves. One that wrote before it was told invalidates the values of the
    /// new identity as a whole, so each should be told within [a second](crate::coherence#other-data).
    pub fn set_identity(&self, identity: Option<Identity>) {
        let core = &self.0.core;
        if let Some(was_known) = core.identity.set(identity) {
            core.stamps.flush();
            if let Some(link) = &core.link {
                link.follow_identity(was_known);
            }
        }
    }

    /// Returns how often [`set_identity`](Self::set_identity) changed the identity.
    pub fn identity_changes(&self) -> u64 {
        self.0.core.identity.term()
    }

    /// Opens a namespace for values of one type. Each is opened once.
    pub fn namespace<V: Serialize + DeserializeOwned + Send + Sync + 'static>(
        &self,
        options: NamespaceOptions<V>,
    ) -> Namespace<V> {
        let shared = Arc::new(Shared::new(Arc::clone(&self.0.core), options));
        self.namespaces().push(Arc::clone(&shared) as Arc<dyn Report>);
        Namespace(shared)
    }

    fn namespaces(&self) -> std::sync::MutexGuard<'_, Vec<Arc<dyn Report>>> {
        self.0.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes several entries and groups, of any namespaces, unusable: to be called after the write that changed
    /// them is committed. With Redis that is one command (in a cluster one a name, and one more).
    ///
    /// It runs to its end even when the returned future is dropped.
    pub async fn invalidate(&self, targets: impl IntoIterator<Item = Target>) -> Invalidation {
        self.0.core.invalidate(targets.into_iter().collect()).await
    }

    /// Makes all values of a namespace (of all of them, as `*`) unusable, in one step however many there are. Other
    /// processes may use theirs until they hear of it, as with [L1 in general](crate::coherence).
    ///
    /// # Errors
    /// When there is no such namespace.
    pub async fn flush(&self, namespace: &str) -> Result<Invalidation, ConfigError> {
        if namespace != "*" && !self.namespaces().iter().any(|open| open.name() == namespace) {
            return Err(ConfigError(format!("there is no namespace {namespace}")));
        }
        let told = match &self.0.core.link {
            Some(link) => link.flush(namespace).await,
            None => true,
        };
        self.0.core.stamps.flush();
        Ok(if told { Invalidation::Complete } else { Invalidation::Deferred })
    }

    /// Makes all copies in this process unusable. For programs that learn by other means that they may have missed
    /// something; [`flush`](Self::flush) is for all processes.
    pub fn flush_l1(&self) {
        self.0.core.stamps.flush();
    }

    /// Waits until Redis is used: for warming, and for tests. Returns at once without Redis.
    pub async fn until_connected(&self) {
        if let Some(link) = &self.0.core.link {
            link.until_up().await;
        }
    }

    /// Runs a Lua script on the Redis that values are shared through, under the same time-out and the same breaker: for
    /// small state that processes share beside the cache, such as counters. It has one key, behind the prefix and the
    /// identity's lineage, and answers with integers.
    ///
    /// `None` without Redis, while it does not answer or the identity is not known, and when this command fails: have
    /// something to go on with.
    pub async fn script(&self, script: &str, key: &str, arguments: &[i64]) -> Option<Vec<i64>> {
        let link = self.0.core.link.as_ref()?;
        let live = link.connection()?;
        let identity = self.0.core.identity.current().1?;
        let key = self.0.core.identity.scope(&identity.lineage) + key;
        link.call(&live, live.wire.script(script, &key, arguments)).await
    }

    /// Whether the cache is on.
    pub fn is_enabled(&self) -> bool {
        self.0.core.enabled
    }

    /// The counts of each namespace, in the order in which they were opened.
    pub fn stats(&self) -> Vec<NamespaceStats> {
        self.namespaces().iter().map(|namespace| namespace.stats()).collect()
    }

    /// The connection to Redis; `None` without one.
    pub fn link(&self) -> Option<LinkStats> {
        let link = self.0.core.link.as_ref()?;
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        Some(LinkStats {
            up: link.reader().is_some(),
            l1_trusted: link.trusts_l1(),
            commands: read(&link.counters.commands),
            failures: read(&link.counters.failures),
            breaks: read(&link.counters.breaks),
            owed: link.owed(),
            fault: link.fault(),
        })
    }

    /// What Redis says of itself; `None` without one, or when it does not answer.
    pub async fn redis(&self) -> Option<RedisStats> {
        let link = self.0.core.link.as_ref()?;
        let live = link.connection()?;
        let info = link.call(&live, live.wire.info()).await?.0;
        Some(RedisStats::read(&info))
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("enabled", &self.is_enabled()).field("link", &self.link()).finish()
    }
}

/// The connection to Redis, as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkStats {
    /// Whether reads use Redis.
    pub up: bool,
    /// Whether reads use this process's own copies.
    pub l1_trusted: bool,
    /// Commands that requests waited for.
    pub commands: u64,
    /// Those that failed or took too long.
    pub failures: u64,
    /// Times that Redis was given up until it answered again.
    pub breaks: u64,
    /// Names that Redis is still to be told to forget.
    pub owed: usize,
    /// Why Redis is not used; `None` while it is.
    pub fault: Option<RedisFault>,
}

/// What Redis says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RedisStats {
    /// Its version.
    pub version: String,
    /// Bytes in use.
    pub used_memory: u64,
    /// The bound of those; 0 for none.
    pub maxmemory: u64,
    /// What is removed when the bound is reached.
    pub maxmemory_policy: String,
    /// Keys removed for want of room.
    pub evicted_keys: u64,
    /// Keys removed at the end of their time.
    pub expired_keys: u64,
    /// What the operator should change.
    pub warnings: Vec<String>,
}

impl RedisStats {
    fn read(info: &HashMap<String, String>) -> Self {
        let text = |name: &str| info.get(name).cloned().unwrap_or_default();
        let number = |name: &str| text(name).parse().unwrap_or(0);
        let mut stats = Self {
            version: text("redis_version"),
            used_memory: number("used_memory"),
            maxmemory: number("maxmemory"),
            maxmemory_policy: text("maxmemory_policy"),
            evicted_keys: number("evicted_keys"),
            expired_keys: number("expired_keys"),
            warnings: Vec::new(),
        };
        if stats.maxmemory == 0 {
            stats.warnings.push("maxmemory is not set: Redis grows until the machine has no memory left".to_owned());
        }
        if !matches!(stats.maxmemory_policy.as_str(), "allkeys-lru" | "allkeys-lfu") {
            stats.warnings.push(format!(
                "maxmemory-policy is {}: a cache should use allkeys-lru or allkeys-lfu",
                stats.maxmemory_policy
            ));
        }
        stats
    }
}
