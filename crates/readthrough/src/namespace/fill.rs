//! The right to store what was loaded, and storing it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use crate::entry::{Entry, Header, encode};
use crate::key::Names;
use crate::remote::link::{Link, Live};
use crate::remote::wire::{Acquired, Fill, LeaseRequest};
use crate::stamps::Stamp;
use crate::stats::add;

/// The part of a time to live that is left to chance, so that what was stored together does not expire together.
const JITTER: f64 = 0.1;
/// The first pause of a reader that waits for a load in another process; each is twice the one before, up to the longest.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// A lease is renewed this many times before it would expire.
const RENEWALS: u32 = 3;

/// A lease that is given back when its holder goes away.
pub(super) struct Lease {
    link: Arc<Link>,
    live: Live,
    names: Names,
    token: u64,
    generation: u64,
    /// The epoch before the load: a flush during the load makes its value unusable, too.
    epoch: u64,
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
pub(super) enum Asked<V> {
    Granted(Lease),
    /// Another process stored a value meanwhile.
    Stored(Arc<Entry<V>>),
    /// Another process loads, or Redis does not answer: what is loaded is not stored.
    No,
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Shared<V> {
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
    pub(super) fn generation_ttl(&self) -> Duration {
        self.options.ttl.max(self.options.negative_ttl) * 2
    }

    /// Asks once for the right to store what is going to be loaded.
    pub(super) async fn ask(&self, names: &Names) -> Asked<V> {
        let Some((link, live)) = self.core.link.as_ref().and_then(|link| Some((link, link.reader()?))) else {
            return Asked::No;
        };
        let (token, epoch) = (rand::random(), live.epoch(self.options.name));
        match self.acquire(link, &live, names, token).await {
            Some(Acquired { granted: true, generation, bytes }) => {
                let (link, names) = (Arc::clone(link), names.clone());
                let lease = Lease { link, live, names, token, generation, epoch, held: true };
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
    pub(super) async fn ask_patiently(&self, names: &Names, early: bool) -> Asked<V> {
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
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Runs a load, and renews its lease meanwhile.
    pub(super) async fn renewing<T>(&self, asked: &[&Asked<V>], load: impl Future<Output = T>) -> T {
        let mut load = pin!(load);
        loop {
            let pause = self.options.lease / RENEWALS;
            if let Ok(loaded) = timeout(pause, &mut load).await {
                return loaded;
            }
            for asked in asked {
                if let Asked::Granted(lease) = asked {
                    let (link, live, names) = (Arc::clone(&lease.link), lease.live.clone(), lease.names.clone());
                    let (token, ttl) = (lease.token, self.options.lease);
                    // Beside the load: a Redis that answers late must not hold it up.
                    tokio::spawn(async move { link.call(&live, live.wire.renew(&names, token, ttl)).await });
                }
            }
        }
    }

    /// A value as an entry and as bytes: of the header alone when it can't be encoded.
    pub(super) fn encoded(&self, epoch: u64, generation: u64, value: Option<V>, took: Duration) -> (Entry<V>, Vec<u8>) {
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
    pub(super) async fn keep(
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
        // An entry by itself has one of its own, so that no two headers are the same: see `replace_before`.
        let generation = if lease.generation == 0 { rand::random() } else { lease.generation };
        let (entry, bytes) = self.encoded(lease.epoch, generation, value, took);
        let entry = Arc::new(entry);
        let fill = Fill {
            token: lease.token,
            generation: lease.generation,
            bytes: &bytes,
            ttl: entry.left(self.core.clock.now_ms(), self.options.ttl.max(self.options.negative_ttl)),
            generation_ttl: self.generation_ttl(),
        };
        if !lease.link.is_current(&lease.live) {
            // Nobody knows which data it was loaded from. The lease is given back.
            add(&self.counters.fills_refused, 1);
            return entry;
        }
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
