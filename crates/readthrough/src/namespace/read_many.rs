//! Reads of several values.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::iter;
use tokio::time::Instant;

use super::lease::LeaseResult;
use super::second_tier::BATCH;
use super::{Inner, Namespace};
use crate::entry::Entry;
use crate::key::{Key, Names};
use crate::reading::Loaded;
use crate::single_flight::{Leader, LoadError, LoadOutcome, Role, Waited, Waiter};
use crate::stats::{add, count};
use crate::version_table::Versions;

/// The number of commands in flight at a time.
const CONCURRENCY: usize = 32;

/// A key that still needs a value.
struct Item<'a> {
    place: usize,
    key: &'a Key,
    names: Names,
    began: Instant,
    /// A load in progress that took too long.
    overdue: Option<u64>,
    /// Set if this reader has waited for a load; see `Inner::read`.
    has_waited: bool,
}

/// A key that this reader loads.
struct Led<'a, V> {
    item: Item<'a>,
    versions: Versions,
    leader: Leader<V>,
}

type Found<V> = Vec<Option<Entry<V>>>;

impl<V: Send + Sync + 'static> Namespace<V> {
    /// Returns several values in the order of `keys`: one round trip to the second tier for the values that L1 lacks, and
    /// one load for the values that neither tier has and nobody is loading.
    ///
    /// `load` receives the indices of the keys to load and returns a value or `None` for each, in that order; omitted
    /// values count as `None`. It is called for at most 500 keys at a time, and again if a load of another reader did
    /// not answer. Duplicate keys are loaded once.
    ///
    /// # Errors
    /// Returns the error of the first load that failed or timed out.
    pub async fn get_many_or_load<E, F, L>(&self, keys: &[Key], load: F) -> Result<Vec<Option<Arc<V>>>, LoadError<E>>
    where
        F: Fn(Vec<usize>) -> L + Send + Sync,
        L: Future<Output = Result<Vec<Option<V>>, E>> + Send,
        E: Send + Sync + 'static,
    {
        let shared = &self.0;
        if !shared.core.enabled {
            return shared.load_all(keys.len(), load).await;
        }
        let began = Instant::now();
        let mut found: Found<V> = keys.iter().map(|_| None).collect();
        let mut first: HashMap<&Key, usize> = HashMap::with_capacity(keys.len());
        let mut items = Vec::with_capacity(keys.len());
        for (place, key) in keys.iter().enumerate() {
            if *first.entry(key).or_insert(place) == place {
                items.push(Item { place, key, names: shared.names(key), began, overdue: None, has_waited: false });
            }
        }
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            shared.read_batch(items.by_ref().take(BATCH).collect(), &load, &mut found).await?;
        }
        Ok(keys.iter().map(|key| found[first[key]].as_ref()?.value.clone()).collect())
    }
}

impl<V: Send + Sync + 'static> Inner<V> {
    /// SingleFlight all values, without caching.
    async fn load_all<E, F, L>(&self, keys: usize, load: F) -> Result<Vec<Option<Arc<V>>>, LoadError<E>>
    where
        F: Fn(Vec<usize>) -> L + Send + Sync,
        L: Future<Output = Result<Vec<Option<V>>, E>> + Send,
    {
        let mut found = Vec::with_capacity(keys);
        while found.len() < keys {
            let places: Vec<usize> = (found.len()..keys).take(BATCH).collect();
            let end = found.len() + places.len();
            let (values, _) = self.timed(self.bounded(load(places))).await?;
            found.extend(values.into_iter().map(|value| value.map(Arc::new)));
            found.resize(end, None);
        }
        Ok(found)
    }

    async fn read_batch<E, F, L>(
        &self,
        mut items: Vec<Item<'_>>,
        load: &F,
        found: &mut Found<V>,
    ) -> Result<(), LoadError<E>>
    where
        F: Fn(Vec<usize>) -> L + Send + Sync,
        L: Future<Output = Result<Vec<Option<V>>, E>> + Send,
        E: Send + Sync + 'static,
    {
        while !items.is_empty() {
            let (mut led, mut waiting) = (Vec::new(), Vec::new());
            for item in items {
                let local = self.local(item.key, Instant::now());
                if let Some(entry) = local.fresh {
                    add(if item.has_waited { &self.counters.coalesced } else { &self.counters.l1_hits }, 1);
                    found[item.place] = Some(entry);
                    continue;
                }
                match self.flights.join(&item.names.entry, &local.versions, item.overdue) {
                    Role::Lead(leader) => led.push(Led { item, versions: local.versions, leader }),
                    Role::Wait(waiter) => waiting.push((item, waiter)),
                }
            }
            let led = self.find_stored(led, found).await;
            if !led.is_empty() {
                self.load_many(led, load, found).await?;
            }
            // Only now, when no other reader waits for this one.
            items = self.wait_for_all(waiting, found).await?;
        }
        Ok(())
    }

    /// Ends the loads of values that the second tier has. Returns the others.
    async fn find_stored<'a>(&self, led: Vec<Led<'a, V>>, found: &mut Found<V>) -> Vec<Led<'a, V>> {
        let names: Vec<&Names> = led.iter().map(|led| &led.item.names).collect();
        let stored = self.stored(&names).await;
        let now = self.core.clock.now_ms();
        let mut missing = Vec::new();
        for (led, entry) in led.into_iter().zip(stored) {
            match entry.filter(|entry| !entry.is_expired(now)) {
                Some(entry) => self.end_hit(led, entry, found),
                None => missing.push(led),
            }
        }
        missing
    }

    fn end_hit(&self, led: Led<'_, V>, entry: Entry<V>, found: &mut Found<V>) {
        self.copy(led.item.key, &led.versions, &entry);
        add(&self.counters.l2_hits, 1);
        found[led.item.place] = Some(entry.clone());
        led.leader.end(LoadOutcome::Loaded(entry));
    }

    /// SingleFlight values with one call of the loader.
    async fn load_many<E, F, L>(&self, led: Vec<Led<'_, V>>, load: &F, found: &mut Found<V>) -> Result<(), LoadError<E>>
    where
        F: Fn(Vec<usize>) -> L + Send + Sync,
        L: Future<Output = Result<Vec<Option<V>>, E>> + Send,
        E: Send + Sync + 'static,
    {
        let mut requests = Vec::with_capacity(led.len());
        for led in &led {
            requests.push(self.try_acquire_lease(&led.item.names));
        }
        let leases: Vec<_> = iter(requests).buffered(CONCURRENCY).collect().await;
        let mut open = Vec::with_capacity(led.len());
        for (led, lease) in led.into_iter().zip(leases) {
            match lease {
                LeaseResult::Stored(entry) => self.end_hit(led, entry, found),
                lease => open.push((led, lease)),
            }
        }
        if open.is_empty() {
            return Ok(());
        }
        let loaded = {
            let holders: Vec<_> = open.iter().map(|(led, lease)| (lease, &led.leader)).collect();
            let places = open.iter().map(|(led, _)| led.item.place).collect();
            let load = self.bounded(load(places));
            self.timed(self.renewing(&holders, load)).await
        };
        add(&self.counters.misses, count(open.len()));
        let (values, took) = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                for (led, _) in open {
                    led.leader.end(LoadOutcome::Failed { failure: error.to_failure(), stale: None });
                }
                return Err(error);
            }
        };
        let mut values = values.into_iter();
        let mut fills = Vec::with_capacity(open.len());
        for (led, lease) in open {
            fills.push(self.end_load(led, lease, values.next().flatten().into(), took));
        }
        let filled: Vec<_> = iter(fills).buffered(CONCURRENCY).collect().await;
        for (place, entry) in filled {
            found[place] = Some(entry);
        }
        Ok(())
    }

    async fn end_load(
        &self,
        led: Led<'_, V>,
        lease: LeaseResult<V>,
        loaded: Loaded<V>,
        took: Duration,
    ) -> (usize, Entry<V>) {
        let Led { item, versions, leader } = led;
        let entry = self.store(item.key, &item.names, &versions, lease, loaded, took).await;
        leader.end(LoadOutcome::Loaded(entry.clone()));
        (item.place, entry)
    }

    /// Waits for the loads of other readers. Returns the keys that they did not answer.
    async fn wait_for_all<'a, E: Send + Sync + 'static>(
        &self,
        waiting: Vec<(Item<'a>, Waiter<V>)>,
        found: &mut Found<V>,
    ) -> Result<Vec<Item<'a>>, LoadError<E>> {
        let (mut open, mut items, mut waits) = (Vec::new(), Vec::new(), Vec::new());
        for (item, waiter) in waiting {
            items.push(item);
            waits.push(waiter.wait(self.options.soft_timeout));
        }
        for (mut item, waited) in items.into_iter().zip(join_all(waits).await) {
            let is_answer = item.has_waited || self.core.remote.is_none();
            item.has_waited = true;
            match waited {
                Waited::Ended(outcome) => match &*outcome {
                    LoadOutcome::Loaded(entry) if is_answer => {
                        add(&self.counters.coalesced, 1);
                        found[item.place] = Some(entry.clone());
                        continue;
                    }
                    LoadOutcome::Loaded(_) => {}
                    // The error of a loader of another type is no answer: this reader's loader runs next.
                    LoadOutcome::Failed { failure, .. } => {
                        if let Some(error) = LoadError::of(failure) {
                            add(&self.counters.misses, 1);
                            return Err(error);
                        }
                    }
                },
                Waited::Abandoned => {}
                Waited::TimedOut(number) => {
                    add(&self.counters.soft_timeouts, 1);
                    if item.began.elapsed() >= self.options.hard_timeout {
                        add(&self.counters.misses, 1);
                        return Err(LoadError::TimedOut(self.options.hard_timeout));
                    }
                    item.overdue = Some(number);
                }
            }
            open.push(item);
        }
        Ok(open)
    }
}
