//! Reads of one value.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::{Instant, timeout};

use super::lease::LeaseResult;
use super::{Inner, Local, Lookup, Namespace};
use crate::entry::Entry;
use crate::key::{Key, Names};
use crate::reading::{Loaded, Reading};
use crate::single_flight::{Leader, LoadError, LoadOutcome, Role, Waited};
use crate::stats::add;

impl<V: Send + Sync + 'static> Namespace<V> {
    /// Returns a value. If no tier has it, loads it and caches it.
    ///
    /// `load` returns `None` for a value that does not exist, which is cached for the negative time to live. It should
    /// read from a place where writes are visible as soon as they are committed: not from a replica that lags. Readers
    /// of the same key wait for one load, and share its error if it fails; errors are not cached.
    ///
    /// # Errors
    /// Returns the error of the load, or that it timed out. A second tier that is slow or down causes no errors, but
    /// loads.
    pub async fn get_or_load<E, F, L>(&self, key: &Key, load: F) -> Result<Option<Arc<V>>, LoadError<E>>
    where
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Option<V>, E>> + Send,
        E: Send + Sync + 'static,
    {
        let local = match self.0.look_up(key) {
            Lookup::Hit(value) => return Ok(value),
            Lookup::Other(local) => local,
        };
        let load = || async { load().await.map(Loaded::new) };
        self.0.read(key, local, false, load).await.map(Reading::into_value)
    }

    /// Returns a value like [`get_or_load`](Self::get_or_load), where the loader chooses its time to live, and the
    /// reader learns whether it has expired: see [`stale_if_error`](crate::NamespaceOptions::stale_if_error).
    ///
    /// ```
    /// use std::time::Duration;
    /// use readthrough::{Cache, Key, Loaded, NamespaceOptions, Reading};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let cache = Cache::builder().build()?;
    /// let tokens = cache.namespace(NamespaceOptions::<String>::local("token").stale_if_error(Duration::from_secs(60)))?;
    /// let load = || async { Ok::<_, std::io::Error>(Loaded::new(Some("abc".to_owned())).ttl(Duration::from_secs(20))) };
    /// match tokens.get_or_load_entry(&Key::new(1), load).await? {
    ///     Reading::Fresh(token) => assert_eq!(token.unwrap().as_str(), "abc"),
    ///     Reading::Stale { expired_for, .. } => println!("expired {expired_for:?} ago"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the error of the load, or that it timed out, unless there is a stale value.
    pub async fn get_or_load_entry<E, F, L>(&self, key: &Key, load: F) -> Result<Reading<V>, LoadError<E>>
    where
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Loaded<V>, E>> + Send,
        E: Send + Sync + 'static,
    {
        match self.0.look_up(key) {
            Lookup::Hit(value) => Ok(Reading::Fresh(value)),
            Lookup::Other(local) => self.0.read(key, local, true, load).await,
        }
    }

    /// Returns the cached value without loading it: `None` if nothing is cached, `Some(None)` if the value is known not
    /// to exist. Counts as a hit or a miss.
    pub async fn get(&self, key: &Key) -> Option<Option<Arc<V>>> {
        let shared = &self.0;
        if !shared.core.enabled {
            return None;
        }
        let local = match shared.look_up(key) {
            Lookup::Hit(value) => return Some(value),
            Lookup::Other(local) => local,
        };
        if let Some(entry) = local.fresh {
            add(&shared.counters.l1_hits, 1);
            return Some(entry.value);
        }
        let names = shared.names(key);
        let stored = shared.stored_one(&names).await;
        let Some(entry) = stored.filter(|entry| !entry.is_expired(shared.core.clock.now_ms())) else {
            add(&shared.counters.misses, 1);
            return None;
        };
        shared.copy(key, &local.versions, &entry);
        add(&shared.counters.l2_hits, 1);
        Some(entry.value)
    }
}

impl<V: Send + Sync + 'static> Inner<V> {
    /// Reads a value that is no simple hit in L1, after the first lookup there.
    async fn read<E, F, L>(
        &self,
        key: &Key,
        first: Local<V>,
        accepts_stale: bool,
        load: F,
    ) -> Result<Reading<V>, LoadError<E>>
    where
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Loaded<V>, E>> + Send,
        E: Send + Sync + 'static,
    {
        if !self.core.enabled {
            return self.load_alone(load).await;
        }
        let (names, began) = (self.names(key), first.looked_up);
        let (mut first, mut has_waited, mut overdue) = (Some(first), false, None);
        loop {
            let local = first.take().unwrap_or_else(|| self.local(key, Instant::now()));
            if let Some(entry) = &local.fresh
                && (has_waited || !entry.should_refresh(self.core.clock.ms_at(local.looked_up)))
            {
                add(if has_waited { &self.counters.coalesced } else { &self.counters.l1_hits }, 1);
                return Ok(Reading::Fresh(entry.value.clone()));
            }
            let waiter = match self.flights.join(&names.entry, &local.versions, overdue) {
                Role::Lead(leader) => return self.lead(key, &names, local, leader, accepts_stale, load).await,
                Role::Wait(waiter) => waiter,
            };
            if let Some(entry) = local.fresh {
                // Another reader refreshes it early.
                add(&self.counters.l1_hits, 1);
                return Ok(Reading::Fresh(entry.value));
            }
            // A load that was in progress before may have read what another process has replaced since. Only a load that
            // began after this reader did is an answer, and the next one is.
            let is_answer = has_waited || self.core.remote.is_none();
            has_waited = true;
            match waiter.wait(self.options.soft_timeout).await {
                Waited::Ended(outcome) => match &*outcome {
                    LoadOutcome::Loaded(entry) if is_answer => {
                        add(&self.counters.coalesced, 1);
                        return Ok(Reading::Fresh(entry.value.clone()));
                    }
                    LoadOutcome::Loaded(_) => {}
                    // The next load tells whether that value is still valid.
                    LoadOutcome::Failed { stale: Some(_), .. } if accepts_stale && !is_answer => {}
                    LoadOutcome::Failed { stale: Some(entry), .. } if accepts_stale => return Ok(self.stale(entry)),
                    LoadOutcome::Failed { failure, .. } => {
                        add(&self.counters.misses, 1);
                        return match LoadError::of(failure) {
                            Some(error) => Err(error),
                            None => self.load_alone(load).await,
                        };
                    }
                },
                Waited::Abandoned => {}
                Waited::TimedOut(number) => {
                    add(&self.counters.soft_timeouts, 1);
                    if let Some(entry) = local.stale.filter(|_| accepts_stale && self.is_current(&local.versions)) {
                        return Ok(self.stale(&entry));
                    }
                    if began.elapsed() >= self.options.hard_timeout {
                        add(&self.counters.misses, 1);
                        return Err(LoadError::TimedOut(self.options.hard_timeout));
                    }
                    overdue = Some(number);
                }
            }
        }
    }

    fn stale(&self, entry: &Entry<V>) -> Reading<V> {
        add(&self.counters.stale_reads, 1);
        let expired_ms = self.core.clock.now_ms().saturating_sub(entry.header.expires_ms);
        Reading::Stale { value: entry.value.clone(), expired_for: std::time::Duration::from_millis(expired_ms) }
    }

    /// SingleFlight for one reader, without caching.
    async fn load_alone<E, F, L>(&self, load: F) -> Result<Reading<V>, LoadError<E>>
    where
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Loaded<V>, E>> + Send,
    {
        let (loaded, _) = self.timed(self.bounded(load())).await?;
        Ok(Reading::Fresh(loaded.value.map(Arc::new)))
    }

    /// Runs a load, at most for the hard time-out.
    pub(super) async fn bounded<T, E>(&self, load: impl Future<Output = Result<T, E>>) -> Result<T, LoadError<E>> {
        match timeout(self.options.hard_timeout, load).await {
            Ok(loaded) => loaded.map_err(|error| LoadError::Failed(Arc::new(error))),
            Err(_) => Err(LoadError::TimedOut(self.options.hard_timeout)),
        }
    }

    /// Reads for all readers of a key in this process.
    async fn lead<E, F, L>(
        &self,
        key: &Key,
        names: &Names,
        local: Local<V>,
        leader: Leader<V>,
        accepts_stale: bool,
        load: F,
    ) -> Result<Reading<V>, LoadError<E>>
    where
        F: FnOnce() -> L + Send,
        L: Future<Output = Result<Loaded<V>, E>> + Send,
        E: Send + Sync + 'static,
    {
        let Local { versions, mut fresh, mut stale, .. } = local;
        let end = |leader: Leader<V>, entry: Entry<V>, counter: &AtomicU64| {
            add(counter, 1);
            let value = entry.value.clone();
            leader.end(LoadOutcome::Loaded(entry));
            Ok(Reading::Fresh(value))
        };
        if fresh.is_none()
            && let Some(entry) = self.stored_one(names).await
        {
            let now = self.core.clock.now_ms();
            if entry.is_expired(now) {
                stale = Some(entry);
            } else {
                self.copy(key, &versions, &entry);
                if !entry.should_refresh(now) {
                    return end(leader, entry, &self.counters.l2_hits);
                }
                fresh = Some(entry);
            }
        }
        let lease = match (self.acquire_lease(names, fresh.is_some()).await, &fresh) {
            (LeaseResult::Stored(entry), None) => {
                self.copy(key, &versions, &entry);
                return end(leader, entry, &self.counters.l2_hits);
            }
            (LeaseResult::Denied, Some(entry)) if self.is_shared() && self.is_current(&versions) => {
                // Another process refreshes it.
                return end(leader, entry.clone(), &self.counters.l2_hits);
            }
            (lease, _) => lease,
        };
        let loaded = {
            let load = self.bounded(load());
            self.timed(self.renewing(&[(&lease, &leader)], load)).await
        };
        match (loaded, fresh) {
            (Ok((loaded, took)), fresh) => {
                let counter = if fresh.is_some() { &self.counters.early_refreshes } else { &self.counters.misses };
                let entry = self.store(key, names, &versions, lease, loaded, took).await;
                end(leader, entry, counter)
            }
            // The value has not expired yet.
            (Err(_), Some(entry)) if self.is_current(&versions) => end(leader, entry, &self.counters.l2_hits),
            (Err(error), _) => {
                add(&self.counters.misses, 1);
                let stale = stale.filter(|_| self.is_current(&versions));
                leader.end(LoadOutcome::Failed { failure: error.to_failure(), stale: stale.clone() });
                match stale {
                    Some(entry) if accepts_stale => Ok(self.stale(&entry)),
                    _ => Err(error),
                }
            }
        }
    }
}
