//! readthrough.

use std::time::Duration;

use readthrough::{Cache, Invalidation, Key, Namespace, NamespaceOptions};

use super::{Setup, Tiers};
use crate::library::Library;
use crate::load::{Load, LoadError, Profile};

pub(super) struct Readthrough {
    _cache: Cache,
    profiles: Namespace<Profile>,
    invalidates: bool,
}

impl Readthrough {
    pub(super) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        let cache = Cache::builder().redis(&setup.redis).build()?;
        let mut options = NamespaceOptions::<Profile>::new("profile").ttl(setup.ttl);
        if setup.tiers == Tiers::Redis {
            options = options.without_l1();
        }
        let profiles = cache.namespace(options)?;
        tokio::time::timeout(Duration::from_secs(10), cache.until_connected()).await?;
        Ok(Self { _cache: cache, profiles, invalidates: true })
    }

    /// Leaves out every invalidation, to show that the checker finds stale reads.
    pub(super) fn without_invalidation(self) -> Self {
        Self { invalidates: false, ..self }
    }
}

impl Library for Readthrough {
    type Key = (u64, Key);

    fn key(id: u64) -> Self::Key {
        (id, Key::new(id))
    }

    async fn read(&self, (id, key): &Self::Key, load: &Load) -> anyhow::Result<u64> {
        let found = self.profiles.get_or_load(key, || async { load.clone().run(*id).await.map(Some) }).await?;
        Ok(found.ok_or(LoadError)?.version)
    }

    async fn invalidate(&self, (_, key): &Self::Key) -> anyhow::Result<()> {
        if !self.invalidates || self.profiles.invalidate(key).await == Invalidation::Complete {
            return Ok(());
        }
        anyhow::bail!("the invalidation was deferred")
    }
}
