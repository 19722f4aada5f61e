//! The permission to store a loaded value, and its use.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::Inner;
use crate::entry::{Entry, Header, encode};
use crate::key::Names;
use crate::remote::connection::ConnectionHandle;
use crate::remote::supervisor::RedisSupervisor;
use crate::remote::tier::{Fill, LeaseRequest, LeaseResponse};
use crate::stats::add;
use crate::version_table::Versions;

/// The random share of a time to live, so that values that were stored together do not expire together.
const JITTER: f64 = 0.1;
/// The first pause of a reader that waits for a load in another process. Each pause doubles, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The number of renewals before a lease would expire.
const RENEWALS: u32 = 3;

/// A lease, which is released when it is dropped.
pub(super) struct Lease {
    remote: Arc<RedisSupervisor>,
    handle: ConnectionHandle,
    names: Names,
    token: u64,
    generation: u64,
    /// The epoch before the load. A flush during the load thus invalidates its value.
    epoch: u64,
    is_held: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.is_held, tokio::runtime::Handle::try_current()) {
            let (remote, handle) = (Arc::clone(&self.remote), self.handle.clone());
            let (names, token) = (self.names.clone(), self.token);
            runtime.spawn(async move { remote.call(&handle, handle.tier.release(&names, token)).await });
        }
    }
}

/// The result of a request for a lease.
pub(super) enum LeaseResult<V> {
    Granted(Lease),
    /// Another process has stored a value meanwhile.
    AlreadyStored(Arc<Entry<V>>),
    /// Another process holds the lease, or Redis does not respond. The loaded value will not be stored.
    Unavailable,
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Inner<V> {
    async fn request_lease(
        &self,
        remote: &RedisSupervisor,
        handle: &ConnectionHandle,
        names: &Names,
        token: u64,
    ) -> Option<LeaseResponse> {
        let request = LeaseRequest {
            token,
            ttl: self.options.lease,
            generation: rand::random::<u64>() | 1,
            generation_ttl: self.generation_ttl(),
        };
        remote.call(handle, handle.tier.acquire(names, request)).await
    }

    /// Returns a time to live longer than that of any entry: an expired generation invalidates all its entries.
    pub(super) fn generation_ttl(&self) -> Duration {
        self.options.ttl.max(self.options.negative_ttl) * 2
    }

    /// Requests the lease once.
    pub(super) async fn try_acquire_lease(&self, names: &Names) -> LeaseResult<V> {
        let Some((remote, handle)) = self.core.reader() else {
            return LeaseResult::Unavailable;
        };
        let (token, epoch) = (rand::random(), handle.epoch(self.options.name));
        match self.request_lease(remote, &handle, names, token).await {
            Some(LeaseResponse { is_granted: true, generation, bytes }) => {
                let (remote, names) = (Arc::clone(remote), names.clone());
                let lease = Lease { remote, handle, names, token, generation, epoch, is_held: true };
                match bytes.and_then(|bytes| self.decode_valid(&lease.handle, &bytes, generation)) {
                    // The value was stored between the read and the request. Dropping the lease releases it.
                    Some(entry) if !entry.should_refresh(self.core.clock.now_ms()) => LeaseResult::AlreadyStored(entry),
                    _ => LeaseResult::Granted(lease),
                }
            }
            Some(LeaseResponse { is_granted: false, generation, bytes }) => {
                match bytes.and_then(|bytes| self.decode_valid(&handle, &bytes, generation)) {
                    Some(entry) => LeaseResult::AlreadyStored(entry),
                    None => LeaseResult::Unavailable,
                }
            }
            None => LeaseResult::Unavailable,
        }
    }

    /// Requests the lease until it is granted, a value appears, or the wait ends; once for an early refresh.
    pub(super) async fn acquire_lease(&self, names: &Names, early: bool) -> LeaseResult<V> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_acquire_lease(names).await {
                LeaseResult::AlreadyStored(_) if early => return LeaseResult::Unavailable,
                LeaseResult::Unavailable if !early && self.core.reader().is_some() => {}
                result => return result,
            }
            if began.elapsed() >= self.options.lease_wait {
                return LeaseResult::Unavailable;
            }
            add(&self.counters.lease_waits, u64::from(pause == FIRST_PAUSE));
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Runs a load and renews its leases meanwhile.
    pub(super) async fn with_lease_renewal<T>(&self, leases: &[&LeaseResult<V>], load: impl Future<Output = T>) -> T {
        let mut load = pin!(load);
        loop {
            let pause = self.options.lease / RENEWALS;
            if let Ok(loaded) = timeout(pause, &mut load).await {
                return loaded;
            }
            for lease in leases {
                if let LeaseResult::Granted(lease) = lease {
                    let (remote, handle) = (Arc::clone(&lease.remote), lease.handle.clone());
                    let names = lease.names.clone();
                    let (token, ttl) = (lease.token, self.options.lease);
                    // In a task of its own: a slow Redis must not delay the load.
                    tokio::spawn(async move { remote.call(&handle, handle.tier.renew(&names, token, ttl)).await });
                }
            }
        }
    }

    /// Builds the entry of a value, and its bytes; the bytes have only the header if the value cannot be encoded.
    pub(super) fn encode_entry(
        &self,
        epoch: u64,
        generation: u64,
        value: Option<V>,
        load: Duration,
    ) -> (Entry<V>, Vec<u8>) {
        let header = self.header(epoch, generation, value.as_ref(), load);
        let mut bytes = header.to_bytes().to_vec();
        match value.as_ref().map(encode) {
            Some(Some(payload)) => bytes.extend(payload),
            Some(None) => {
                tracing::error!(namespace = self.options.name, "value cannot be encoded; other processes load it")
            }
            None => {}
        }
        (Entry { header, value: value.map(Arc::new), bytes: bytes.len() }, bytes)
    }

    fn header(&self, epoch: u64, generation: u64, value: Option<&V>, load: Duration) -> Header {
        let ttl = if value.is_some() { self.options.ttl } else { self.options.negative_ttl };
        let ttl = ttl.mul_f64(1.0 - JITTER * rand::random::<f64>());
        Header {
            absent: value.is_none(),
            epoch,
            generation,
            version: self.options.value_version.zip(value).map_or(0, |(version, value)| version(value)),
            load_micros: u32::try_from(load.as_micros()).unwrap_or(u32::MAX),
            expires_ms: self.core.clock.now_ms() + u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX / 2),
        }
    }

    /// Stores a loaded value in each tier that accepts it.
    pub(super) async fn store(
        &self,
        names: &Names,
        versions: Versions,
        lease: LeaseResult<V>,
        value: Option<V>,
        duration: Duration,
    ) -> Arc<Entry<V>> {
        let LeaseResult::Granted(mut lease) = lease else {
            let entry = Arc::new(self.encode_entry(0, 0, value, duration).0);
            // With Redis, L1 stores only values that Redis has accepted.
            if self.core.remote.is_none() {
                self.store_copy(names, versions, &entry);
            }
            return entry;
        };
        // A single entry gets a random generation, so that no two headers are equal: see `replace_snapshot`.
        let generation = if lease.generation == 0 { rand::random() } else { lease.generation };
        let (entry, bytes) = self.encode_entry(lease.epoch, generation, value, duration);
        let entry = Arc::new(entry);
        let fill = Fill {
            token: lease.token,
            generation: lease.generation,
            bytes: &bytes,
            ttl: entry.remaining(self.core.clock.now_ms(), self.options.ttl.max(self.options.negative_ttl)),
            generation_ttl: self.generation_ttl(),
        };
        if !lease.remote.is_current(&lease.handle) {
            // The identity has changed: the value may belong to other data. Dropping the lease releases it.
            add(&self.counters.fills_refused, 1);
            return entry;
        }
        // The fill releases the lease, whatever its result.
        lease.is_held = false;
        match lease.remote.call(&lease.handle, lease.handle.tier.fill(names, fill)).await {
            Some(true) => self.store_copy(names, versions, &entry),
            Some(false) => add(&self.counters.fills_refused, 1),
            None => {}
        }
        entry
    }
}
