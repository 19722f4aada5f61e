//! Values that writers store in the place of older ones.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, Namespace};
use crate::core::{Invalidation, Target};
use crate::entry::{Entry, Header};
use crate::key::{Key, Names};
use crate::reading::Loaded;
use crate::remote::tier::Replacement;
use crate::stats::add;
use crate::version_table::Versions;

/// A cached value from before a write: see [`Namespace::snapshot`].
pub struct Snapshot<V> {
    key: Key,
    names: Names,
    versions: Versions,
    entry: Entry<V>,
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

impl<V: Send + Sync + 'static> Namespace<V> {
    /// Stores the result of a committed write in the place of an older cached value, and otherwise invalidates the entry.
    /// Either way no reader finds the old value afterwards. The value of a newer write is not replaced by that of an
    /// older one, as [`value_version`](crate::NamespaceOptions::value_version) defines. Where nothing is cached the value
    /// is not stored, since an even newer write may have invalidated the entry. After
    /// [`Cache::set_identity`](crate::Cache::set_identity) has changed the identity no value is stored any more, because
    /// nobody knows which data were written.
    pub async fn replace_if_newer(&self, key: &Key, value: V) -> Invalidation {
        let names = self.0.names(key);
        let shared = Arc::clone(&self.0);
        // A task of its own, as for invalidations.
        if self.0.core.enabled
            && self.0.is_shared()
            && tokio::spawn(async move { shared.replace_older(&names, value).await }).await.unwrap_or(false)
        {
            return Invalidation::Complete;
        }
        self.invalidate(key).await
    }

    /// Returns the cached value before a write begins that will change it, or `None` if nothing is cached. From it and
    /// from the result of the write the caller can make a value for [`replace_if_unchanged`](Self::replace_if_unchanged).
    pub async fn snapshot(&self, key: &Key) -> Option<Snapshot<V>> {
        let shared = &self.0;
        if !shared.core.enabled {
            return None;
        }
        let names = shared.names(key);
        let local = shared.local(key, Instant::now());
        let entry = match local.fresh {
            Some(entry) => entry,
            None => shared.stored_one(&names).await.filter(|entry| !entry.is_expired(shared.core.clock.now_ms()))?,
        };
        let value = entry.value.clone()?;
        Some(Snapshot { key: key.clone(), names, versions: local.versions, entry, value })
    }

    /// Invalidates the group of a value, or the value if it is in no group, and stores this value in the same step: the
    /// result of the write, made from the value of the snapshot. If anything of the group was invalidated since the
    /// snapshot, by any process, the value is not stored.
    ///
    /// The value expires when the value of the snapshot would have. [`coherence`](crate::coherence) explains why no other
    /// write can be missing in it for longer than in a loaded value.
    pub async fn replace_if_unchanged(&self, snapshot: Snapshot<V>, value: V) -> Invalidation {
        let shared = Arc::clone(&self.0);
        let name = snapshot.names.group.as_ref().unwrap_or(&snapshot.names.entry).clone();
        let target = Target { name, counters: Arc::clone(&shared.counters) };
        // A task of its own, as for invalidations.
        if tokio::spawn(async move { shared.replace_snapshot(snapshot, value).await }).await.unwrap_or(false) {
            return Invalidation::Complete;
        }
        self.0.core.invalidate(vec![target]).await
    }
}

impl<V: Send + Sync + 'static> Inner<V> {
    /// Stores a value in the place of an older one in the second tier. Returns `false` if there is none, or nothing is
    /// known of it.
    async fn replace_older(&self, names: &Names, value: V) -> bool {
        let Some(version) = self.options.value_version else { return false };
        let Some(tier) = self.tier(names) else { return false };
        if tier.handle.term != 0 {
            return false;
        }
        let old = self.fetch(&tier, &[names]).await.into_iter().next().flatten();
        let Some(old) = old.filter(|old| old.header.version < version(&value)) else { return false };
        let took = Duration::from_micros(old.header.load_micros.into());
        let epoch = tier.handle.epoch(self.options.name);
        let loaded = Loaded::new(Some(value));
        let header = self.header((epoch, old.header.generation), old.header.tags.clone(), &loaded, took);
        let told = self.replace(names, &old.header, &header, loaded.value.as_ref(), &names.entry).await.is_some();
        self.core.versions.increment(&names.entry);
        told
    }

    /// Stores a value in the place of the one that it was made of. Returns `false` if that is not stored any more.
    async fn replace_snapshot(&self, snapshot: Snapshot<V>, value: V) -> bool {
        let Snapshot { key, names, versions, entry: old, .. } = snapshot;
        let name = names.group.as_ref().unwrap_or(&names.entry);
        let version = self.options.value_version.map_or(0, |version| version(&value));
        // The old value tells when it was last known to be what the database has. The random generation makes sure that no
        // value which was stored since, and is gone again, is taken for it.
        let header = Header { version, generation: rand::random::<u64>() | 1, ..old.header.clone() };
        let encoded = if self.is_shared() {
            match self.replace(&names, &old.header, &header, Some(&value), name).await {
                Some(length) => Some(length),
                None => return false,
            }
        } else if self.core.remote.is_some() {
            // The other processes have copies, too.
            return false;
        } else {
            add(&self.counters.invalidations, 1);
            add(&self.counters.puts, 1);
            None
        };
        let bytes = self.weight(Some(&value), encoded);
        let entry = Entry { header, value: Some(Arc::new(value)), bytes };
        // Copied only if nothing was invalidated here since the old value was read.
        if let Some(versions) = self.core.versions.increment_if_unchanged(versions) {
            self.copy(&key, &versions, &entry);
        }
        true
    }

    /// Replaces the entry that is stored under the header `old`, and the generation of its group by the one of `header`,
    /// and tells the other processes that `name` has changed. Returns the size of the entry if both succeeded.
    async fn replace(
        &self,
        names: &Names,
        old: &Header,
        header: &Header,
        value: Option<&V>,
        name: &str,
    ) -> Option<usize> {
        let tier = self.tier(names)?;
        tier.supervisor.record(name);
        let bytes = self.encoded(header, value)?;
        let left = header.expires_ms.saturating_sub(self.core.clock.now_ms());
        let replacement = Replacement {
            expected: &old.to_bytes(),
            generations: (old.generation, header.generation),
            bytes: &bytes,
            ttl: Duration::from_millis(left).min(self.options.longest_ttl()) + self.options.stale_if_error,
            generation_ttl: self.generation_ttl(),
        };
        let (supervisor, handle) = (tier.supervisor, &tier.handle);
        if supervisor.call(handle, handle.tier.replace(names, replacement)).await != Some(true) {
            return None;
        }
        // The second tier has the new value. The copies in other processes remain to be invalidated.
        supervisor.call(handle, handle.tier.announce(&[name.to_owned()], supervisor.node)).await?;
        add(&self.counters.invalidations, 1);
        add(&self.counters.puts, 1);
        Some(bytes.len())
    }
}
