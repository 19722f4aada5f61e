//! Values that writers put in the place of older ones.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Namespace, Shared};
use crate::cache::{Invalidation, Target};
use crate::entry::{Entry, Header, encode};
use crate::key::{Key, Names};
use crate::remote::wire::Replacement;
use crate::stamps::Stamp;
use crate::stats::add;

/// A value as it was before a write: see [`Namespace::before_write`].
pub struct Before<V> {
    names: Names,
    stamp: Stamp,
    entry: Arc<Entry<V>>,
    value: Arc<V>,
}

impl<V> Before<V> {
    /// The value.
    pub fn value(&self) -> &V {
        &self.value
    }
}

impl<V> std::fmt::Debug for Before<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Before").field(&self.names.entry).finish()
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Namespace<V> {
    /// Stores what a committed write left, where an older value of this key is stored; otherwise makes the entry
    /// unusable. Either way no reader finds the old value afterwards, and the value of a newer write is not
    /// replaced by that of an older one: [`value_version`](crate::NamespaceOptions::value_version) says which is newer.
    /// Where nothing is stored nothing is put, as that may be what an even newer write left. Once
    /// [`Cache::set_identity`](crate::Cache::set_identity) has changed the identity nothing is put any more: nobody knows which data were written.
    pub async fn put_if_newer(&self, key: &Key, value: V) -> Invalidation {
        let names = Names::new(&self.0.prefix, key);
        let shared = Arc::clone(&self.0);
        // A task of its own, as for invalidations.
        if self.0.core.enabled
            && self.0.core.link.is_some()
            && tokio::spawn(async move { shared.replace_older(&names, value).await }).await.unwrap_or(false)
        {
            return Invalidation::Complete;
        }
        self.invalidate(key).await
    }

    /// What is kept of a value, to be asked for before a write begins that will change it: of this and of what the write
    /// did, its result may be made for [`put_changed`](Self::put_changed). `None` where no value is kept.
    pub async fn before_write(&self, key: &Key) -> Option<Before<V>> {
        let shared = &self.0;
        if !shared.core.enabled {
            return None;
        }
        let names = Names::new(&shared.prefix, key);
        let (stamp, known) = shared.copied(&names);
        let entry = match known {
            Some(known) => known,
            None => shared.stored(&[&names]).await.into_iter().next().flatten()?,
        };
        let value = entry.value.clone()?;
        Some(Before { names, stamp, entry, value })
    }

    /// Makes the group of a value (or the value, if it is in none) unusable, as
    /// [`invalidate_group`](Self::invalidate_group) does, and keeps this value in the same step: what the write left,
    /// made of what was there before. If anything of the group was invalidated since, by whomever, nothing is kept.
    ///
    /// A value that is kept so expires when the one that it was made of would have. See
    /// [`coherence`](crate::coherence) for why no other write can be missing in it for longer than it may be missing in
    /// a value that was loaded.
    pub async fn put_changed(&self, before: Before<V>, value: V) -> Invalidation {
        let shared = Arc::clone(&self.0);
        let name = before.names.group.as_ref().unwrap_or(&before.names.entry).clone();
        let target = Target { name, counters: Arc::clone(&shared.counters) };
        // A task of its own, as for invalidations.
        if tokio::spawn(async move { shared.replace_before(before, value).await }).await.unwrap_or(false) {
            return Invalidation::Complete;
        }
        self.0.core.invalidate(vec![target]).await
    }
}

impl<V: Serialize + DeserializeOwned + Send + Sync + 'static> Shared<V> {
    /// Puts a value in the place of an older one in Redis; `false` when there is none, or nothing is known of it.
    async fn replace_older(&self, names: &Names, value: V) -> bool {
        let Some(version) = self.options.value_version else { return false };
        let Some((link, live)) = self.core.link.as_ref().and_then(|link| Some((link, link.reader()?))) else {
            return false;
        };
        if live.term != 0 {
            return false;
        }
        let old = self.fetch(link, &live, &[names]).await.into_iter().next().flatten();
        let Some(old) = old.filter(|old| old.header.version < version(&value)) else { return false };
        let took = Duration::from_micros(old.header.load_micros.into());
        let epoch = live.epoch(self.options.name);
        let (entry, bytes) = self.encoded(epoch, old.header.generation, Some(value), took);
        let told = self.replace(names, &old.header, &entry, &bytes, &names.entry).await;
        self.core.stamps.bump(&names.entry);
        told
    }

    /// Puts a value in the place of the one that it was made of; `false` when that is not there any more.
    async fn replace_before(&self, before: Before<V>, value: V) -> bool {
        let Before { names, stamp, entry: old, .. } = before;
        let name = names.group.as_ref().unwrap_or(&names.entry);
        let version = self.options.value_version.map_or(0, |version| version(&value));
        // The one that it was made of tells when it was last known to be what the database has. The random generation makes
        // sure that nothing which was stored since, and is gone again, is taken for it.
        let header = Header { version, generation: rand::random::<u64>() | 1, ..old.header };
        let Some(payload) = encode(&value) else { return false };
        let bytes = [&header.to_bytes()[..], &payload].concat();
        let entry = Arc::new(Entry { header, value: Some(Arc::new(value)), bytes: bytes.len() });
        if self.core.link.is_some() {
            if !self.replace(&names, &old.header, &entry, &bytes, name).await {
                return false;
            }
        } else {
            add(&self.counters.invalidations, 1);
            add(&self.counters.puts, 1);
        }
        // Copied only if nothing was invalidated here since the old value was read.
        if let Some(stamp) = self.core.stamps.bump_from(name, names.group.is_some(), stamp) {
            self.copy(&names, stamp, &entry);
        }
        true
    }

    /// Replaces what is stored under this header, and its generation by the new entry's, and tells the other processes
    /// that `name` has changed; whether both was done.
    async fn replace(&self, names: &Names, old: &Header, entry: &Entry<V>, bytes: &[u8], name: &str) -> bool {
        let Some((link, live)) = self.core.link.as_ref().and_then(|link| Some((link, link.reader()?))) else {
            return false;
        };
        let replacement = Replacement {
            expected: &old.to_bytes(),
            generations: (old.generation, entry.header.generation),
            bytes,
            ttl: entry.left(self.core.clock.now_ms(), self.options.ttl),
            generation_ttl: self.generation_ttl(),
        };
        if link.call(&live, live.wire.replace(names, replacement)).await != Some(true) {
            return false;
        }
        // Copies in other processes are left to be told of; Redis has the new value.
        let told = link.call(&live, live.wire.announce(&[name.to_owned()], link.node)).await.is_some();
        add(&self.counters.invalidations, u64::from(told));
        add(&self.counters.puts, u64::from(told));
        told
    }
}
