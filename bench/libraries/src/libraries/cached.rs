//! cached, with its store in Redis.

use std::sync::Arc;

use cached::{AsyncRedisCache, ConcurrentCachedAsync as _};

use super::{Setup, Tiers};
use crate::library::Library;
use crate::load::{Load, Profile};

pub(super) struct Cached(AsyncRedisCache<u64, Arc<Profile>>);

impl Cached {
    pub(super) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        let builder = AsyncRedisCache::builder("profile")
            .ttl(setup.ttl)
            .connection_string(&setup.redis)
            .connection_manager(true)
            .client_side_caching(setup.tiers == Tiers::Both);
        Ok(Self(builder.build().await?))
    }
}

impl Library for Cached {
    type Key = u64;

    fn key(id: u64) -> Self::Key {
        id
    }

    async fn read(&self, id: &u64, load: &Load) -> anyhow::Result<u64> {
        let load = || async { load.clone().run(*id).await.map(Arc::new) };
        Ok(self.0.async_cache_try_get_or_set_with(*id, load).await??.version)
    }

    async fn invalidate(&self, id: &u64) -> anyhow::Result<()> {
        self.0.async_cache_delete(id).await?;
        Ok(())
    }
}
