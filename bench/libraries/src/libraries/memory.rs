//! Caches in the memory of one process: moka, and `#[cached]`.

use std::sync::Arc;

use cached::Cached as _;
use cached::macros::cached;

use super::Setup;
use crate::library::Library;
use crate::load::{Load, LoadError, Profile};

const CAPACITY: u64 = 100_000;

/// A key that names its kind of value, for a cache of several kinds.
fn name(id: u64) -> String {
    format!("v1:profile:{{{id}}}")
}

/// moka's lookup by a string, and nothing else.
pub(super) struct BareMoka(moka::sync::Cache<String, Arc<Profile>>);

impl BareMoka {
    pub(super) fn open(setup: &Setup) -> Self {
        Self(moka::sync::Cache::builder().max_capacity(CAPACITY).time_to_live(setup.ttl).build())
    }
}

impl Library for BareMoka {
    type Key = (u64, String);

    fn key(id: u64) -> Self::Key {
        (id, name(id))
    }

    async fn read(&self, (id, key): &Self::Key, load: &Load) -> anyhow::Result<u64> {
        if let Some(profile) = self.0.get(key) {
            return Ok(profile.version);
        }
        let profile = load.clone().run(*id).await?;
        let version = profile.version;
        self.0.insert(key.clone(), Arc::new(profile));
        Ok(version)
    }

    async fn invalidate(&self, (_, key): &Self::Key) -> anyhow::Result<()> {
        self.0.invalidate(key);
        Ok(())
    }
}

/// moka's `try_get_with`.
pub(super) struct Moka(moka::future::Cache<String, Arc<Profile>>);

impl Moka {
    pub(super) fn open(setup: &Setup) -> Self {
        Self(moka::future::Cache::builder().max_capacity(CAPACITY).time_to_live(setup.ttl).build())
    }
}

impl Library for Moka {
    type Key = (u64, String);

    fn key(id: u64) -> Self::Key {
        (id, name(id))
    }

    async fn read(&self, (id, key): &Self::Key, load: &Load) -> anyhow::Result<u64> {
        let load = async { load.clone().run(*id).await.map(Arc::new) };
        Ok(self.0.try_get_with_by_ref(key, load).await.map_err(|error| LoadError::clone(&error))?.version)
    }

    async fn invalidate(&self, (_, key): &Self::Key) -> anyhow::Result<()> {
        self.0.invalidate(key).await;
        Ok(())
    }
}

/// `#[cached]`, whose store is a static.
pub(super) struct CachedInMemory;

#[cached(name = "PROFILES", ttl_secs = 60, sync_writes = "by_key", key = "u64", convert = "{ id }")]
async fn load_profile(id: u64, load: Load) -> Result<Arc<Profile>, LoadError> {
    load.run(id).await.map(Arc::new)
}

impl Library for CachedInMemory {
    type Key = u64;

    fn key(id: u64) -> Self::Key {
        id
    }

    async fn read(&self, id: &u64, load: &Load) -> anyhow::Result<u64> {
        Ok(load_profile(*id, load.clone()).await?.version)
    }

    async fn invalidate(&self, id: &u64) -> anyhow::Result<()> {
        let _ = PROFILES.write().await.cache_remove(id);
        Ok(())
    }
}
