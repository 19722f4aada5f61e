//! Values that writers store in place of older ones.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Inner, Namespace};
use crate::core::{Invalidation, Target};
use crate::entry::{Entry, Header, encode};
use crate::key::{Key, Names};
use crate::remote::tier::Replacement;
use crate::stats::add;
use crate::version_table::Versions;

/// A cached value before a write: see [`Namespace::snapshot`].
pub struct Snapshot<V> {
    names: Names,
    versions: Versions,
    entry: Arc<Entry<V>>,
    value: Arc<V>,
}

impl<V> Snapshot<V> {
    /// Returns the value.
    pub fn value(&self) -> &V {
        &self.value
    }
}

impl<V> std::fmt::Debug for Snapshot<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Snapshot").field(&self.names.entry).finish()
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Namespace<V> {
    /// Replaces an older stored value by the value of a committed write; otherwise invalidates the entry.
    ///
    /// No later read finds the old value. [`value_version`](crate::NamespaceOptions::value_version) determines which value is
    /// newer; the value of a newer write stays. If no value is stored, the value is not stored either: an even newer write
    /// may have invalidated the entry. After a change of the identity by
    /// [`Cache::set_identity`](crate::Cache::set_identity), every call invalidates, because the written data are unknown.
    pub async fn replace_if_newer(&self, key: &Key, value: V) -> Invalidation {
        let names = Names::new(&self.0.prefix, key);
        let shared = Arc::clone(&self.0);
        // A separate task, as for invalidations.
        if self.0.core.enabled
            && self.0.core.remote.is_some()
            && tokio::spawn(async move { shared.replace_older(&names, value).await }).await.unwrap_or(false)
        {
            return Invalidation::Complete;
        }
        self.invalidate(key).await
    }

    /// Takes a snapshot of the cached value before a write; `None` if no value is cached.
    ///
    /// The writer computes the new value from the snapshot and the result of the write, for
    /// [`replace_if_unchanged`](Self::replace_if_unchanged).
    pub async fn snapshot(&self, key: &Key) -> Option<Snapshot<V>> {
        let shared = &self.0;
        if !shared.core.enabled {
            return None;
        }
        let names = Names::new(&shared.prefix, key);
        let (versions, known) = shared.local_copy(&names);
        let entry = match known {
            Some(known) => known,
            None => shared.read_remote(&[&names]).await.into_iter().next().flatten()?,
        };
        let value = entry.value.clone()?;
        Some(Snapshot { names, versions, entry, value })
    }

    /// Invalidates the group of the snapshot, or the entry if it has no group, and stores the new value in the same step.
    ///
    /// If any process has invalidated the group since the snapshot, the value is not stored. The stored value expires when
    /// the snapshot would have expired. [`coherence`](crate::coherence#values-of-writers) has the argument for correctness.
    pub async fn replace_if_unchanged(&self, snapshot: Snapshot<V>, value: V) -> Invalidation {
        let shared = Arc::clone(&self.0);
        let name = snapshot.names.group.as_ref().unwrap_or(&snapshot.names.entry).clone();
        let target = Target { name, counters: Arc::clone(&shared.counters) };
        // A separate task, as for invalidations.
        if tokio::spawn(async move { shared.replace_snapshot(snapshot, value).await }).await.unwrap_or(false) {
            return Invalidation::Complete;
        }
        self.0.core.invalidate(vec![target]).await
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Inner<V> {
    /// Replaces an older value in Redis. Returns `false` if no older value is known.
    async fn replace_older(&self, names: &Names, value: V) -> bool {
        let Some(version) = self.options.value_version else { return false };
        let Some((remote, handle)) = self.core.reader() else {
            return false;
        };
        if handle.term != 0 {
            return false;
        }
        let old = self.fetch(remote, &handle, &[names]).await.into_iter().next().flatten();
        let Some(old) = old.filter(|old| old.header.version < version(&value)) else { return false };
        let load = Duration::from_micros(old.header.load_micros.into());
        let epoch = handle.epoch(self.options.name);
        let (entry, bytes) = self.encode_entry(epoch, old.header.generation, Some(value), load);
        let is_replaced = self.replace(names, &old.header, &entry, &bytes, &names.entry).await;
        self.core.versions.increment(&names.entry);
        is_replaced
    }

    /// Replaces the value of a snapshot. Returns `false` if it is no longer stored.
    async fn replace_snapshot(&self, snapshot: Snapshot<V>, value: V) -> bool {
        let Snapshot { names, versions, entry: old, .. } = snapshot;
        let name = names.group.as_ref().unwrap_or(&names.entry);
        let version = self.options.value_version.map_or(0, |version| version(&value));
        // The expiry of the snapshot stays, because only the snapshot was loaded from the database. The random generation
        // distinguishes this value from any value that was stored and removed meanwhile.
        let header = Header { version, generation: rand::random::<u64>() | 1, ..old.header };
        let Some(payload) = encode(&value) else { return false };
        let bytes = [&header.to_bytes()[..], &payload].concat();
        let entry = Arc::new(Entry { header, value: Some(Arc::new(value)), bytes: bytes.len() });
        if self.core.remote.is_some() {
            if !self.replace(&names, &old.header, &entry, &bytes, name).await {
                return false;
            }
        } else {
            add(&self.counters.invalidations, 1);
            add(&self.counters.puts, 1);
        }
        // Stored in L1 only if no invalidation has reached this process since the snapshot.
        let is_group = names.group.is_some();
        if let Some(versions) = self.core.versions.increment_if_unchanged(name, is_group, versions) {
            self.store_copy(&names, versions, &entry);
        }
        true
    }

    /// Replaces the entry with this header, and the generation by that of the new entry; then announces `name` to the other
    /// processes. Returns whether both succeeded.
    async fn replace(&self, names: &Names, old: &Header, entry: &Entry<V>, bytes: &[u8], name: &String) -> bool {
        let Some((remote, handle)) = self.core.reader() else {
            return false;
        };
        let replacement = Replacement {
            expected: &old.to_bytes(),
            generations: (old.generation, entry.header.generation),
            bytes,
            ttl: entry.remaining(self.core.clock.now_ms(), self.options.ttl),
            generation_ttl: self.generation_ttl(),
        };
        if remote.call(&handle, handle.tier.replace(names, replacement)).await != Some(true) {
            return false;
        }
        // Redis has the new value; the copies of other processes remain.
        let announce = handle.tier.announce(std::slice::from_ref(name), remote.node);
        let is_announced = remote.call(&handle, announce).await.is_some();
        add(&self.counters.invalidations, u64::from(is_announced));
        add(&self.counters.puts, u64::from(is_announced));
        is_announced
    }
}
