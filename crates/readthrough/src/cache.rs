//! The cache, which all namespaces share.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::{Core, Invalidation, Target};
use crate::error::{ConfigError, UnsentInvalidations};
use crate::identity::Identity;
use crate::namespace::{Namespace, NamespaceOptions};
#[cfg(feature = "redis")]
use crate::remote::redis::RedisConnection;
use crate::remote::stats::{ConnectionStats, RedisStats};
use crate::remote::supervisor::Supervision;
use crate::stats::{NamespaceStats, StatsSource};

/// A cache of two tiers: the memory of this process (L1), and Redis (L2) if one is configured. Clones share one cache.
#[derive(Clone)]
pub struct Cache(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) core: Arc<Core>,
    pub(crate) _supervision: Option<Supervision>,
    pub(crate) namespaces: Mutex<Vec<Arc<dyn StatsSource>>>,
}

impl Inner {
    /// Returns the invalidations that Redis has not received.
    fn unsent(&self) -> Option<UnsentInvalidations> {
        let (names, is_flush) = self.core.remote.as_ref()?.pending();
        (names > 0 || is_flush).then_some(UnsentInvalidations { names, is_flush })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(unsent) = self.unsent() {
            crate::trace::warn!("cache dropped: {unsent}");
        }
    }
}

impl Cache {
    /// Waits until Redis has received all invalidations, up to `limit`. Call it before the process exits.
    ///
    /// An invalidation that was [`Deferred`](crate::Invalidation::Deferred) exists only in this process until Redis
    /// responds. [`coherence`](crate::coherence#writers-that-exit) describes how a caller with an outbox hands it over.
    ///
    /// # Errors
    /// Returns the number of invalidations that are lost if the process exits now.
    pub async fn close(&self, limit: Duration) -> Result<(), UnsentInvalidations> {
        let sent = async {
            // The sender exists as long as the cache, so that the wait can't fail.
            let _ = self.0.core.invalidations.subscribe().wait_for(|count| *count == 0).await;
            if let Some(remote) = &self.0.core.remote {
                remote.until_sent().await;
            }
        };
        let _ = tokio::time::timeout(limit, sent).await;
        match self.0.unsent() {
            Some(unsent) => Err(unsent),
            None => Ok(()),
        }
    }

    /// Sets which data the values belong to from now on; `None` while that is unknown.
    ///
    /// Call it before the first read of data that may differ from the data before: as soon as a connection to the
    /// database is open. No read that begins after it returns finds a value of other data. A value whose load began before
    /// is not stored, even if the same identity has returned meanwhile.
    ///
    /// Each process sets its identity itself. A process that wrote before it learned of the new identity flushes the
    /// values of that identity, so each process should set it within [a second](crate::coherence#change-of-the-data).
    pub fn set_identity(&self, identity: Option<Identity>) {
        let core = &self.0.core;
        if let Some(was_known) = core.identity.set(identity) {
            core.versions.invalidate_all();
            if let Some(remote) = &core.remote {
                remote.switch_identity(was_known);
            }
        }
    }

    /// Returns how often [`set_identity`](Self::set_identity) changed the identity.
    pub fn identity_changes(&self) -> u64 {
        self.0.core.identity.term()
    }

    /// Opens a namespace for values of one type. A second opening with the same type and options returns the same
    /// namespace.
    ///
    /// # Errors
    /// Returns an error if the namespace is open with another type or other options.
    pub fn namespace<V: Send + Sync + 'static>(
        &self,
        options: NamespaceOptions<V>,
    ) -> Result<Namespace<V>, ConfigError> {
        let name = options.name();
        let mut namespaces = self.namespaces();
        if let Some(open) = namespaces.iter().find(|open| open.name() == name) {
            let open = Arc::clone(open) as Arc<dyn Any + Send + Sync>;
            return Namespace::reopen(open, &options)
                .ok_or_else(|| ConfigError(format!("namespace {name} is open with another type or other options")));
        }
        let namespace = Namespace::new(Arc::clone(&self.0.core), options);
        namespaces.push(namespace.stats_source());
        Ok(namespace)
    }

    fn namespaces(&self) -> MutexGuard<'_, Vec<Arc<dyn StatsSource>>> {
        self.0.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Invalidates entries and groups of several namespaces. Call it after the write that changed them is committed.
    ///
    /// It sends one Redis command; in a cluster, one per name and one more. It runs to completion even if the returned
    /// future is dropped.
    pub async fn invalidate(&self, targets: impl IntoIterator<Item = Target>) -> Invalidation {
        self.0.core.invalidate(targets.into_iter().collect()).await
    }

    /// Invalidates all values of a namespace, or of all namespaces with `*`, in constant time.
    ///
    /// Other processes may use their copies until they receive the event, as with [L1 in general](crate::coherence).
    ///
    /// # Errors
    /// Returns an error if no namespace has this name.
    pub async fn flush(&self, namespace: &str) -> Result<Invalidation, ConfigError> {
        if namespace != "*" && !self.namespaces().iter().any(|open| open.name() == namespace) {
            return Err(ConfigError(format!("no namespace has the name {namespace}")));
        }
        let is_complete = match &self.0.core.remote {
            Some(remote) => remote.flush(namespace).await,
            None => true,
        };
        self.0.core.versions.invalidate_all();
        Ok(if is_complete { Invalidation::Complete } else { Invalidation::Deferred })
    }

    /// Invalidates all copies in this process, for programs that may have missed an event of their own.
    /// [`flush`](Self::flush) reaches all processes.
    pub fn flush_l1(&self) {
        self.0.core.versions.invalidate_all();
    }

    /// Waits until reads use Redis, for warming and for tests. Returns at once if no Redis is configured.
    pub async fn until_connected(&self) {
        if let Some(remote) = &self.0.core.remote {
            remote.until_available().await;
        }
    }

    /// Lends the supervised connection to Redis, for commands of the program itself: small state that the processes
    /// share, such as counters.
    ///
    /// Returns `None` if no Redis is configured, if Redis does not respond, or if the identity is unknown. Callers need a
    /// fallback.
    #[cfg(feature = "redis")]
    pub fn redis_connection(&self) -> Option<RedisConnection> {
        let remote = self.0.core.remote.as_ref()?;
        let identity = self.0.core.identity.current().1?;
        RedisConnection::new(Arc::clone(remote), self.0.core.identity.key_prefix(&identity.lineage))
    }

    /// Returns whether the cache is on.
    pub fn is_enabled(&self) -> bool {
        self.0.core.enabled
    }

    /// Returns the counters of each namespace, in the order in which they were opened.
    pub fn stats(&self) -> Vec<NamespaceStats> {
        self.namespaces().iter().map(|namespace| namespace.stats()).collect()
    }

    /// Returns the state of the connection to Redis; `None` if no Redis is configured.
    pub fn connection_stats(&self) -> Option<ConnectionStats> {
        self.0.core.remote.as_ref().map(|remote| remote.stats())
    }

    /// Queries Redis for its own statistics; `None` if no Redis is configured or Redis does not respond.
    pub async fn redis_stats(&self) -> Option<RedisStats> {
        let remote = self.0.core.remote.as_ref()?;
        let handle = remote.connection()?;
        let info = remote.call(&handle, handle.tier.info()).await?;
        Some(RedisStats::from_info(&info))
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connection = self.connection_stats();
        f.debug_struct("Cache").field("enabled", &self.is_enabled()).field("connection", &connection).finish()
    }
}
