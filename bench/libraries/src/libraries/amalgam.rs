//! amalgam-cache.

use std::sync::Arc;

use amalgam::provider::{MessagePackSerializer, RedisBackplane, RedisDistributedCache, RedisDistributedLocker};
use amalgam::{Cache, EntryOptions};

use super::{Setup, Tiers};
use crate::library::Library;
use crate::load::{Load, Profile};

pub(super) struct Amalgam(Cache<Arc<Profile>>);

impl Amalgam {
    /// `strict` selects fenced writes and an L1 that is discarded with the backplane, and waits for the message to
    /// the other processes.
    pub(super) async fn open(setup: &Setup, strict: bool) -> anyhow::Result<Self> {
        let mut options = EntryOptions::new(setup.ttl).with_allow_background_backplane_operations(!strict);
        if setup.tiers == Tiers::Redis {
            options = options.with_skip_memory(true, true);
        }
        let mut builder = Cache::builder()
            .default_options(options)
            .max_capacity(100_000)
            .distributed(Arc::new(RedisDistributedCache::connect(setup.redis.clone()).await?))
            .serializer(Arc::new(MessagePackSerializer))
            .backplane(Arc::new(RedisBackplane::connect(setup.redis.clone()).await?))
            .distributed_locker(Arc::new(RedisDistributedLocker::connect(setup.redis.clone()).await?));
        if strict {
            builder = builder.strict();
        }
        Ok(Self(builder.try_build_ready().await?))
    }
}

impl Library for Amalgam {
    type Key = (u64, String);

    fn key(id: u64) -> Self::Key {
        (id, format!("profile:{id}"))
    }

    async fn read(&self, (id, key): &Self::Key, load: &Load) -> anyhow::Result<u64> {
        let (id, load) = (*id, load.clone());
        let factory = amalgam::source::factory(move |_| async move { load.run(id).await.map(Arc::new) });
        Ok(self.0.get_or_set(key, factory).await?.version)
    }

    async fn invalidate(&self, (_, key): &Self::Key) -> anyhow::Result<()> {
        Ok(self.0.remove(key).await?)
    }
}
