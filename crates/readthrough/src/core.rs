//! State that a cache shares with its namespaces.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::identity::CurrentIdentity;
use crate::key::Names;
use crate::remote::connection::ConnectionHandle;
use crate::remote::supervisor::RedisSupervisor;
use crate::stats::{Counters, add};
use crate::version_table::VersionTable;

/// Tells how far an invalidation reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Invalidation {
    /// The old value is gone from Redis and from this process.
    Complete,
    /// The old value is gone from this process. Redis did not respond; this process sends the invalidation when
    /// Redis responds, and does not read from Redis before.
    Deferred,
}

/// An entry or a group of a namespace to invalidate.
///
/// [`Namespace::target`](crate::Namespace::target) and [`Namespace::group_target`](crate::Namespace::group_target) make
/// targets for [`Cache::invalidate`](crate::Cache::invalidate).
#[derive(Debug, Clone)]
pub struct Target {
    pub(crate) name: String,
    pub(crate) counters: Arc<Counters>,
}

pub(crate) struct Core {
    pub(crate) versions: Arc<VersionTable>,
    pub(crate) identity: Arc<CurrentIdentity>,
    /// The connection to Redis, if one is configured.
    pub(crate) remote: Option<Arc<RedisSupervisor>>,
    pub(crate) enabled: bool,
    pub(crate) clock: Arc<Clock>,
    /// The number of invalidations in progress.
    pub(crate) invalidations: watch::Sender<usize>,
}

impl Core {
    /// Returns whether reads that began at `now` may use the copies in this process.
    #[inline]
    pub(crate) fn is_l1_fresh(&self, now: Instant) -> bool {
        self.identity.is_known() && self.remote.as_ref().is_none_or(|remote| remote.is_l1_fresh(now))
    }

    /// Returns the connection that reads of an entry may use.
    pub(crate) fn reader(&self, names: &Names) -> Option<(&Arc<RedisSupervisor>, ConnectionHandle)> {
        let remote = self.remote.as_ref()?;
        Some((remote, remote.reader_of(names)?))
    }

    /// Invalidates the targets in Redis, then in this process.
    pub(crate) async fn invalidate(self: &Arc<Self>, targets: Vec<Target>) -> Invalidation {
        let Some(remote) = self.remote.clone().filter(|_| self.enabled) else {
            for target in targets {
                self.versions.increment(&target.name);
                add(&target.counters.invalidations, 1);
            }
            return Invalidation::Complete;
        };
        let core = Arc::clone(self);
        core.invalidations.send_modify(|count| *count += 1);
        // A separate task: dropping the caller's future must not leave the invalidation half done.
        let is_complete = tokio::spawn(async move {
            let names = targets.iter().map(|target| target.name.clone()).collect();
            let is_complete = remote.invalidate(names).await;
            // After Redis: a reader may fetch the old value from Redis until Redis has removed it.
            for target in &targets {
                core.versions.increment(&target.name);
                add(&target.counters.invalidations, 1);
                add(&target.counters.deferred, u64::from(!is_complete));
            }
            core.invalidations.send_modify(|count| *count -= 1);
            is_complete
        });
        if is_complete.await.unwrap_or(false) { Invalidation::Complete } else { Invalidation::Deferred }
    }
}
