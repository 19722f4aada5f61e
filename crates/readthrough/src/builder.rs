//! The settings of a cache.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::cache::{Cache, Inner};
use crate::clock::Clock;
use crate::core::Core;
use crate::error::ConfigError;
use crate::identity::{CurrentIdentity, Identity, validate_name};
#[cfg(feature = "redis")]
use crate::remote::redis::Endpoint;
use crate::remote::supervisor::{Limits, REPLAY_WINDOW, RedisSupervisor};
use crate::remote::tier::Connector;
use crate::version_table::VersionTable;

/// Configures a [`Cache`]; [`build`](Self::build) creates it.
pub struct CacheBuilder {
    #[cfg(feature = "redis")]
    redis: Option<String>,
    connector: Option<Box<dyn Connector>>,
    redis_timeout: Duration,
    l1_staleness: Duration,
    replay_window: Duration,
    enabled: bool,
    prefix: String,
    identity: Option<Identity>,
}

impl Cache {
    /// Returns a builder with the default settings.
    pub fn builder() -> CacheBuilder {
        CacheBuilder {
            #[cfg(feature = "redis")]
            redis: None,
            connector: None,
            redis_timeout: Duration::from_millis(50),
            l1_staleness: Duration::from_millis(250),
            replay_window: REPLAY_WINDOW,
            enabled: true,
            prefix: String::new(),
            identity: Some(Identity { state: String::new(), lineage: String::new() }),
        }
    }
}

impl CacheBuilder {
    /// Sets the URL of the Redis (or Valkey) through which processes share values.
    ///
    /// Schemes: `redis://[user:password@]host[:port][/database]`, `rediss://` with TLS (feature `tls`),
    /// `redis+sentinel://host:port,host:port/master` (feature `sentinel`), `redis+cluster://host:port,host:port` (feature
    /// `cluster`). Default: none; values stay in this process.
    #[cfg(feature = "redis")]
    pub fn redis(mut self, url: impl Into<String>) -> Self {
        self.redis = Some(url.into());
        self
    }

    /// Sets the second tier through which processes share values, in place of Redis: see
    /// [`second_tier`](crate::second_tier).
    pub fn second_tier(mut self, connector: impl Connector + 'static) -> Self {
        self.connector = Some(Box::new(connector));
        self
    }

    /// Sets the time limit of one Redis command. Default: 50 ms.
    pub const fn redis_timeout(mut self, timeout: Duration) -> Self {
        self.redis_timeout = timeout;
        self
    }

    /// Sets how long reads use the copies in this process without news from Redis. Default: 250 ms.
    pub const fn l1_staleness(mut self, bound: Duration) -> Self {
        self.l1_staleness = bound;
        self
    }

    /// Sets how long this process stores its invalidations for the replay to a new master.
    #[cfg(test)]
    pub(crate) const fn replay_window(mut self, window: Duration) -> Self {
        self.replay_window = window;
        self
    }

    /// Turns the cache on or off. While it is off, every read loads. Default: `true`.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets the first part of all keys in Redis, before the identity, for programs that share a Redis. Default: empty.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets which data the values belong to; `None` until [`Cache::set_identity`] sets it.
    ///
    /// While the identity is unknown, every read loads and nothing is stored. Default: an identity with empty names, for
    /// a Redis that serves one set of data.
    pub fn identity(mut self, identity: Option<Identity>) -> Self {
        self.identity = identity;
        self
    }

    /// Validates the settings without a runtime.
    ///
    /// # Errors
    /// Returns an error if the URL cannot be parsed, or if the prefix has characters that a key may not begin with.
    pub fn check(&self) -> Result<(), ConfigError> {
        validate_name(self.prefix.clone())?;
        self.endpoint().map(drop)
    }

    #[cfg(feature = "redis")]
    fn endpoint(&self) -> Result<Option<Box<dyn Connector>>, ConfigError> {
        let parse = |url| match Endpoint::parse(url) {
            Ok(endpoint) => Ok(Box::new(endpoint) as Box<dyn Connector>),
            Err(error) => Err(ConfigError(error.to_string())),
        };
        self.redis.as_deref().map(parse).transpose()
    }

    #[cfg(not(feature = "redis"))]
    fn endpoint(&self) -> Result<Option<Box<dyn Connector>>, ConfigError> {
        Ok(None)
    }

    /// Creates the cache. It connects to Redis in the background; reads load until Redis responds.
    ///
    /// # Errors
    /// Returns an error if the URL cannot be parsed, or if the prefix has characters that a key may not begin with.
    ///
    /// The cache can be built outside a tokio runtime, and outlives the runtime that it was built on, so that it can be a
    /// static: it connects again on the runtime of the next use.
    pub fn build(mut self) -> Result<Cache, ConfigError> {
        self.prefix = validate_name(self.prefix)?;
        let endpoint = self.endpoint()?;
        let connector = self.connector.take().or(endpoint).filter(|_| self.enabled);
        Ok(self.build_with(connector))
    }

    /// Creates a cache whose second tier is behind this connector.
    pub(crate) fn build_with(self, connector: Option<Box<dyn Connector>>) -> Cache {
        let versions = Arc::new(VersionTable::new());
        let identity = Arc::new(CurrentIdentity::new(self.prefix, self.identity));
        let clock = Arc::new(Clock::new());
        let limits =
            Limits { timeout: self.redis_timeout, staleness: self.l1_staleness, replay_window: self.replay_window };
        let (remote, supervision) = connector
            .map(|connector| {
                let (versions, identity) = (Arc::clone(&versions), Arc::clone(&identity));
                RedisSupervisor::start(connector, versions, identity, Arc::clone(&clock), limits)
            })
            .unzip();
        Cache(Arc::new(Inner {
            core: Arc::new(Core {
                versions,
                identity,
                remote,
                enabled: self.enabled,
                clock,
                invalidations: watch::Sender::new(0),
            }),
            _supervision: supervision,
            namespaces: Mutex::default(),
        }))
    }
}

impl std::fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL contains a password.
        f.debug_struct("CacheBuilder")
            .field("enabled", &self.enabled)
            .field("prefix", &self.prefix)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
