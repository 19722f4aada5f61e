//! Reads from the tiers, and loads.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::lease::LeaseResult;
use super::{Inner, LocalCopy};
use crate::entry::{Entry, Header, decode};
use crate::key::Names;
use crate::remote::connection::ConnectionHandle;
use crate::remote::supervisor::RedisSupervisor;
use crate::single_flight::{Leader, LoadOutcome};
use crate::stats::add;
use crate::version_table::Versions;

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Inner<V> {
    /// Returns the present versions, and the copy in this process if it is valid.
    pub(super) fn local_copy(&self, names: &Names) -> (Versions, Option<Arc<Entry<V>>>) {
        // The freshness first: it states that all invalidations up to some time have incremented the counters. If it were
        // read afterwards, it could be extended, and a counter incremented, after the counters were read.
        let is_fresh = self.core.is_l1_fresh();
        let versions = self.core.versions.read(&names.entry, names.group.as_deref());
        let copy = self.l1.as_ref().filter(|_| is_fresh).and_then(|l1| l1.get(&names.entry));
        let valid = copy.filter(|copy| copy.versions == versions && copy.until > Instant::now());
        (versions, valid.map(|copy| copy.entry))
    }

    /// Returns whether no invalidation has reached this process since the versions were read.
    fn is_unchanged(&self, names: &Names, versions: Versions) -> bool {
        self.core.versions.read(&names.entry, names.group.as_deref()) == versions
    }

    /// Stores a copy in this process with the versions from before the fetch.
    pub(super) fn store_copy(&self, names: &Names, versions: Versions, entry: &Arc<Entry<V>>) {
        if let Some(l1) = &self.l1 {
            let until = Instant::now() + entry.remaining(self.core.clock.now_ms(), self.options.ttl);
            l1.insert(names.entry.clone(), LocalCopy { entry: Arc::clone(entry), versions, until });
        }
    }

    /// Runs a loader and counts it. Returns the value and the duration of the load.
    pub(super) async fn run_loader<T, E>(&self, load: impl Future<Output = Result<T, E>>) -> Result<(T, Duration), E> {
        let began = Instant::now();
        let loaded = load.await;
        let duration = began.elapsed();
        self.counters.add_load(duration);
        match loaded {
            Ok(value) => Ok((value, duration)),
            Err(error) => {
                add(&self.counters.load_errors, 1);
                Err(error)
            }
        }
    }

    /// Reads from Redis or loads, as the first of several readers of a key. If the load fails, `known` is the result.
    pub(super) async fn load_as_leader<E, F, L>(
        &self,
        names: &Names,
        versions: Versions,
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
            leader.finish(LoadOutcome::Found(entry));
            Ok(value)
        };
        if known.is_none()
            && let Some(entry) = self.read_remote(&[names]).await.into_iter().next().flatten()
        {
            self.store_copy(names, versions, &entry);
            if !entry.should_refresh(self.core.clock.now_ms()) {
                return end(leader, entry, &self.counters.l2_hits);
            }
            known = Some(entry);
        }
        let lease = match (self.acquire_lease(names, known.is_some()).await, &known) {
            (LeaseResult::AlreadyStored(entry), None) => {
                self.store_copy(names, versions, &entry);
                return end(leader, entry, &self.counters.l2_hits);
            }
            (LeaseResult::Unavailable, Some(known))
                if self.core.remote.is_some() && self.is_unchanged(names, versions) =>
            {
                // Another process refreshes the value.
                return end(leader, Arc::clone(known), &self.counters.l2_hits);
            }
            (lease, _) => lease,
        };
        match (self.run_loader(self.with_lease_renewal(&[&lease], load())).await, known) {
            (Ok((value, duration)), known) => {
                let counter = if known.is_some() { &self.counters.early_refreshes } else { &self.counters.misses };
                let entry = self.store(names, versions, lease, value, duration).await;
                end(leader, entry, counter)
            }
            // The value has not expired.
            (Err(_), Some(known)) if self.is_unchanged(names, versions) => end(leader, known, &self.counters.l2_hits),
            (Err(error), _) => {
                add(&self.counters.misses, 1);
                leader.finish(LoadOutcome::Failed);
                Err(error)
            }
        }
    }

    /// Reads entries from Redis if it is available.
    pub(super) async fn read_remote(&self, names: &[&Names]) -> Vec<Option<Arc<Entry<V>>>> {
        match self.core.reader() {
            Some((remote, handle)) if !names.is_empty() => self.fetch(remote, &handle, names).await,
            _ => names.iter().map(|_| None).collect(),
        }
    }

    pub(super) async fn fetch(
        &self,
        remote: &RedisSupervisor,
        handle: &ConnectionHandle,
        names: &[&Names],
    ) -> Vec<Option<Arc<Entry<V>>>> {
        let keys: Vec<&str> =
            names.iter().flat_map(|names| [Some(names.entry.as_str()), names.group.as_deref()]).flatten().collect();
        let mut values = remote.call(handle, handle.tier.get(&keys)).await.unwrap_or_default().into_iter();
        names
            .iter()
            .map(|names| {
                let bytes = values.next().flatten();
                let generation = match &names.group {
                    // A group without a generation has no valid members.
                    Some(_) => parse_number(values.next().flatten().as_deref()),
                    None => Some(0),
                };
                self.decode_valid(handle, &bytes?, generation?)
            })
            .collect()
    }

    /// Decodes an entry if it is valid in the present epoch and generation. A single entry has the generation 0 here, which
    /// matches any.
    pub(super) fn decode_valid(
        &self,
        handle: &ConnectionHandle,
        bytes: &[u8],
        generation: u64,
    ) -> Option<Arc<Entry<V>>> {
        let Some((header, payload)) = Header::split(bytes) else {
            add(&self.counters.undecodable, 1);
            return None;
        };
        let is_valid = self.core.remote.as_ref().is_some_and(|remote| remote.is_current(handle))
            && header.epoch == handle.epoch(self.options.name)
            && (generation == 0 || header.generation == generation)
            && header.expires_ms > self.core.clock.now_ms();
        if !is_valid {
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

fn parse_number(bytes: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(bytes?).ok()?.parse().ok()
}
