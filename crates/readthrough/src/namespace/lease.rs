//! Leases, and what a load stores.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, sleep, timeout};

use super::Inner;
use super::second_tier::Tier;
use crate::entry::{Entry, Header, shared};
use crate::key::{Key, Names};
use crate::reading::Loaded;
use crate::remote::connection::ConnectionHandle;
use crate::remote::supervisor::RedisSupervisor;
use crate::remote::tier::{Fill, LeaseRequest, LeaseResponse};
use crate::single_flight::Leader;
use crate::stats::add;
use crate::trace::{debug, error, warn};
use crate::version_table::Versions;

/// The first pause of a reader that waits for a load in another process. Each is twice the one before, up to the longest.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A lease is renewed this many times before it would expire.
const RENEWALS: u32 = 3;

/// A lease, which is released when its holder goes away.
pub(super) struct Lease {
    supervisor: Arc<RedisSupervisor>,
    handle: ConnectionHandle,
    names: Names,
    token: u64,
    generation: u64,
    tags: Vec<u64>,
    /// The epoch before the load: a flush during the load invalidates its value, too.
    epoch: u64,
    /// The time of the last successful request for it.
    renewed_at: Arc<Mutex<Instant>>,
    is_held: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.is_held, tokio::runtime::Handle::try_current()) {
            let (supervisor, handle) = (Arc::clone(&self.supervisor), self.handle.clone());
            let (names, token) = (self.names.clone(), self.token);
            runtime.spawn(async move { supervisor.call(&handle, handle.tier.release(&names, token)).await });
        }
    }
}

/// The result of a request for a lease.
pub(super) enum LeaseResult<V> {
    Granted(Lease),
    /// Another process stored a value meanwhile.
    Stored(Entry<V>),
    /// Another process loads, or the second tier does not respond: the value will not be stored.
    Denied,
}

impl<V: Send + Sync + 'static> Inner<V> {
    /// Returns the time to live of generations. It exceeds that of all entries: with a generation all its entries
    /// expire.
    pub(super) fn generation_ttl(&self) -> Duration {
        (self.options.longest_ttl() + self.options.stale_if_error) * 2
    }

    /// Requests the lease of an entry, and the generations of its tags before it.
    async fn request(&self, tier: &Tier<'_, V>, names: &Names, token: u64) -> Option<(LeaseResponse, Vec<u64>)> {
        let (supervisor, handle) = (tier.supervisor, &tier.handle);
        let (generation, generation_ttl) = (rand::random::<u64>() | 1, self.generation_ttl());
        let request = LeaseRequest { token, ttl: self.options.lease, generation, generation_ttl };
        let acquire = supervisor.call(handle, handle.tier.acquire(names, request));
        if names.tags.is_empty() {
            return Some((acquire.await?, Vec::new()));
        }
        let capture = supervisor.call(handle, handle.tier.generations(&names.tags, generation, generation_ttl));
        let (tags, acquired) = join(capture, acquire).await;
        Some((acquired?, tags?))
    }

    /// Tries once to acquire the lease of an entry.
    pub(super) async fn try_acquire_lease(&self, names: &Names) -> LeaseResult<V> {
        let Some(tier) = self.tier(names) else { return LeaseResult::Denied };
        let (token, epoch) = (rand::random(), tier.handle.epoch(self.options.name));
        let response = self.request(&tier, names, token).await;
        let lease = |generation: u64, tags: Vec<u64>| Lease {
            supervisor: Arc::clone(tier.supervisor),
            handle: tier.handle.clone(),
            names: names.clone(),
            token,
            generation,
            tags,
            epoch,
            renewed_at: Arc::new(Mutex::new(Instant::now())),
            is_held: true,
        };
        let Some((LeaseResponse { is_granted, generation, bytes }, tags)) = response else {
            // The server may still grant the lease: nobody would renew it, and readers would wait for its expiry.
            drop(lease(0, Vec::new()));
            return LeaseResult::Denied;
        };
        let stored = bytes.and_then(|bytes| self.decoded(&tier, &bytes, generation, &tags));
        let stored = stored.filter(|entry| !entry.is_expired(self.core.clock.now_ms()));
        if !is_granted {
            return stored.map_or(LeaseResult::Denied, LeaseResult::Stored);
        }
        let lease = lease(generation, tags);
        match stored {
            // Stored between the lookup and the request. The lease is released.
            Some(entry) if !entry.should_refresh(self.core.clock.now_ms()) => LeaseResult::Stored(entry),
            _ => LeaseResult::Granted(lease),
        }
    }

    /// Tries until the lease is granted, a value is stored, or the wait is over; once for an early refresh.
    pub(super) async fn acquire_lease(&self, names: &Names, is_early: bool) -> LeaseResult<V> {
        let began = Instant::now();
        let mut pause = PAUSE;
        loop {
            match self.try_acquire_lease(names).await {
                LeaseResult::Stored(_) if is_early => return LeaseResult::Denied,
                LeaseResult::Denied if !is_early && self.tier(names).is_some() => {}
                result => return result,
            }
            if began.elapsed() >= self.options.lease_wait {
                return LeaseResult::Denied;
            }
            add(&self.counters.lease_waits, u64::from(pause == PAUSE));
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Runs a load and renews its leases meanwhile, as long as their holders lead.
    pub(super) async fn renewing<T>(
        &self,
        leases: &[(&LeaseResult<V>, &Leader<V>)],
        load: impl Future<Output = T>,
    ) -> T {
        let mut load = pin!(load);
        loop {
            let pause = self.options.lease / RENEWALS;
            if let Ok(loaded) = timeout(pause, &mut load).await {
                return loaded;
            }
            for (lease, leader) in leases {
                if let LeaseResult::Granted(lease) = lease
                    && leader.leads()
                {
                    self.renew(lease);
                }
            }
        }
    }

    /// Renews a lease in the background: a slow second tier must not delay the load.
    fn renew(&self, lease: &Lease) {
        let (supervisor, handle) = (Arc::clone(&lease.supervisor), lease.handle.clone());
        let (names, renewed_at) = (lease.names.clone(), Arc::clone(&lease.renewed_at));
        let (token, ttl) = (lease.token, self.options.lease);
        tokio::spawn(async move {
            let began = Instant::now();
            if supervisor.call(&handle, handle.tier.renew(&names, token, ttl)).await.is_some() {
                *renewed_at.lock().unwrap_or_else(PoisonError::into_inner) = began;
            }
        });
    }

    /// Returns the header of a loaded value.
    pub(super) fn header(
        &self,
        (epoch, generation): (u64, u64),
        tags: Option<Arc<Vec<u64>>>,
        loaded: &Loaded<V>,
        took: Duration,
    ) -> Header {
        let value = loaded.value.as_ref();
        let ttl = if value.is_some() { self.options.ttl } else { self.options.negative_ttl };
        let ttl = loaded.ttl.unwrap_or(ttl).min(self.options.longest_ttl());
        let ttl = ttl.mul_f64(1.0 - self.options.jitter * rand::random::<f64>());
        Header {
            absent: value.is_none(),
            epoch,
            generation,
            version: self.options.value_version.zip(value).map_or(0, |(version, value)| version(value)),
            load_micros: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
            expires_ms: self.core.clock.now_ms() + u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 2),
            tags,
        }
    }

    /// Encodes an entry. Returns `None` if the value can't be encoded.
    pub(super) fn encoded(&self, header: &Header, value: Option<&V>) -> Option<Vec<u8>> {
        let mut bytes = header.to_bytes();
        if let Some(value) = value {
            let payload = self.options.codec.and_then(|codec| (codec.encode)(value));
            if payload.is_none() {
                error!(namespace = self.options.name, "a value can't be encoded and is not cached");
            }
            bytes.extend(payload?);
        }
        Some(bytes)
    }

    /// Stores a loaded value in the tiers that may have it.
    pub(super) async fn store(
        &self,
        key: &Key,
        names: &Names,
        versions: &Versions,
        lease: LeaseResult<V>,
        loaded: Loaded<V>,
        took: Duration,
    ) -> Entry<V> {
        let LeaseResult::Granted(mut lease) = lease else {
            let header = self.header((0, 0), None, &loaded, took);
            let is_local = !self.is_shared();
            let bytes = if is_local { self.weight(loaded.value.as_ref(), None) } else { 0 };
            let entry = Entry { header, value: loaded.value.map(Arc::new), bytes };
            // Of a shared namespace, this process copies only what the second tier has.
            if is_local {
                self.copy(key, versions, &entry);
            }
            return entry;
        };
        // An entry by itself has its own generation, so that no two headers are equal: see `replace_snapshot`.
        let generation = if lease.generation == 0 { rand::random() } else { lease.generation };
        let header = self.header((lease.epoch, generation), shared(std::mem::take(&mut lease.tags)), &loaded, took);
        let encoded = self.encoded(&header, loaded.value.as_ref());
        let bytes = self.weight(loaded.value.as_ref(), Some(encoded.as_ref().map_or(0, Vec::len)));
        let entry = Entry { header, value: loaded.value.map(Arc::new), bytes };
        let left = entry.left(self.core.clock.now_ms(), self.options.longest_ttl());
        let Some(encoded) = encoded.filter(|_| !left.is_zero()) else { return entry };
        let is_flushed = lease.handle.epoch(self.options.name) != lease.epoch;
        if is_flushed || !lease.supervisor.is_current(&lease.handle) {
            // A flush or a change of the identity came after the load began. The lease is released.
            add(&self.counters.fills_refused, 1);
            return entry;
        }
        let fill = Fill {
            token: lease.token,
            generation: lease.generation,
            bytes: &encoded,
            ttl: left + self.options.stale_if_error,
            generation_ttl: self.generation_ttl(),
        };
        // The fill ends the lease, whether or not it is accepted.
        lease.is_held = false;
        match lease.supervisor.call(&lease.handle, lease.handle.tier.fill(names, fill)).await {
            Some(true) => self.copy(key, versions, &entry),
            Some(false) => {
                add(&self.counters.fills_refused, 1);
                self.explain(&lease, took);
            }
            None => {}
        }
        entry
    }

    /// Logs why a value was not stored.
    fn explain(&self, lease: &Lease, took: Duration) {
        let renewed_at = *lease.renewed_at.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = self.options.name;
        if renewed_at.elapsed() >= self.options.lease {
            warn!(
                namespace,
                ?took,
                lease = ?self.options.lease,
                "a loaded value is not cached: its lease expired, as renewals failed or another load took over"
            );
        } else {
            debug!(namespace, ?took, "a loaded value is not cached: it was invalidated during the load");
        }
    }
}
