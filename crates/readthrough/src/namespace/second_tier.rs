//! The entries of a namespace in the second tier.

use std::sync::Arc;

use super::Inner;
use crate::entry::{Codec, Entry, Header};
use crate::key::Names;
use crate::remote::connection::ConnectionHandle;
use crate::remote::supervisor::RedisSupervisor;
use crate::stats::add;

/// The maximum number of entries that one command fetches.
pub(super) const BATCH: usize = 500;

/// The second tier of a namespace, ready for a command.
pub(super) struct Tier<'a, V> {
    pub(super) supervisor: &'a Arc<RedisSupervisor>,
    pub(super) handle: ConnectionHandle,
    pub(super) codec: Codec<V>,
}

impl<V: Send + Sync + 'static> Inner<V> {
    /// Returns whether the values of this namespace are shared through a second tier.
    pub(super) fn is_shared(&self) -> bool {
        self.core.remote.is_some() && self.options.codec.is_some()
    }

    /// Returns the second tier if reads of an entry may use it.
    pub(super) fn tier(&self, names: &Names) -> Option<Tier<'_, V>> {
        let codec = self.options.codec?;
        let (supervisor, handle) = self.core.reader(names)?;
        Some(Tier { supervisor, handle, codec })
    }

    /// Returns the stored entries of these names, fresh or stale, as far as the second tier is available for them.
    pub(super) async fn stored(&self, names: &[&Names]) -> Vec<Option<Entry<V>>> {
        let mut entries: Vec<_> = names.iter().map(|_| None).collect();
        let (mut readable, mut available) = (Vec::new(), None);
        for (index, names) in names.iter().enumerate() {
            if let Some(tier) = self.tier(names) {
                available.get_or_insert(tier);
                readable.push((index, *names));
            }
        }
        let Some(tier) = available else { return entries };
        for batch in readable.chunks(BATCH) {
            let names: Vec<&Names> = batch.iter().map(|(_, names)| *names).collect();
            for ((index, _), entry) in batch.iter().zip(self.fetch(&tier, &names).await) {
                entries[*index] = entry;
            }
        }
        entries
    }

    /// Returns the stored entry of one name.
    pub(super) async fn stored_one(&self, names: &Names) -> Option<Entry<V>> {
        let tier = self.tier(names)?;
        let all: Vec<&str> = names.all().collect();
        let values = tier.supervisor.call(&tier.handle, tier.handle.tier.get(&all)).await?;
        self.decoded_next(&tier, names, &mut values.into_iter())
    }

    pub(super) async fn fetch(&self, tier: &Tier<'_, V>, names: &[&Names]) -> Vec<Option<Entry<V>>> {
        let keys: Vec<&str> = names.iter().flat_map(|names| names.all()).collect();
        let values = tier.supervisor.call(&tier.handle, tier.handle.tier.get(&keys)).await;
        let mut values = values.unwrap_or_default().into_iter();
        names.iter().map(|names| self.decoded_next(tier, names, &mut values)).collect()
    }

    /// Decodes an entry from the values of its names, which it takes.
    fn decoded_next(
        &self,
        tier: &Tier<'_, V>,
        names: &Names,
        values: &mut impl Iterator<Item = Option<Vec<u8>>>,
    ) -> Option<Entry<V>> {
        let bytes = values.next().flatten();
        // A group without a generation has no valid entries. All values of the names are consumed first.
        let group = names.group.as_ref().map(|_| generation(values.next().flatten().as_deref()));
        let tags: Vec<_> = names.tags.iter().map(|_| generation(values.next().flatten().as_deref())).collect();
        let tags: Vec<u64> = tags.into_iter().collect::<Option<_>>()?;
        self.decoded(tier, &bytes?, group.unwrap_or(Some(0))?, &tags)
    }

    /// Decodes an entry if it is valid in the present epoch and generations, and not expired for longer than the
    /// namespace allows. An entry by itself is valid in any generation, which 0 stands for.
    pub(super) fn decoded(&self, tier: &Tier<'_, V>, bytes: &[u8], generation: u64, tags: &[u64]) -> Option<Entry<V>> {
        let Some((header, payload)) = Header::split(bytes) else {
            add(&self.counters.undecodable, 1);
            return None;
        };
        let stale = u64::try_from(self.options.stale_if_error.as_millis()).unwrap_or(u64::MAX);
        let is_valid = tier.supervisor.is_current(&tier.handle)
            && header.epoch == tier.handle.epoch(self.options.name)
            && (generation == 0 || header.generation == generation)
            && header.tags() == tags
            && header.expires_ms.saturating_add(stale) > self.core.clock.now_ms();
        if !is_valid {
            return None;
        }
        let value = if header.absent { None } else { (tier.codec.decode)(payload).map(Arc::new) };
        if value.is_none() && !header.absent {
            add(&self.counters.undecodable, 1);
            return None;
        }
        let bytes = self.weight(value.as_deref(), Some(bytes.len()));
        Some(Entry { header, value, bytes })
    }

    /// Returns the size of a value for the bound of L1. `encoded` is the size of its entry in the second tier.
    pub(super) fn weight(&self, value: Option<&V>, encoded: Option<usize>) -> usize {
        match (self.options.weigher, encoded, self.options.codec) {
            (Some(weigher), _, _) => value.map_or(0, weigher),
            (None, Some(encoded), _) => encoded,
            (None, None, Some(codec)) => value.map_or(0, codec.size),
            (None, None, None) => size_of::<V>(),
        }
    }
}

/// Reads a generation, which is stored as text.
fn generation(bytes: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(bytes?).ok()?.parse().ok()
}
