//! hitbox.

use hitbox::concurrency::BroadcastConcurrencyManager;
use hitbox::offload::OffloadManager;
use hitbox::policy::{ConcurrencyLimit, PolicyConfig};
use hitbox_backend::composition::policy::RefillPolicy;
use hitbox_backend::format::BincodeFormat;
use hitbox_backend::{CacheBackend, Compose as _};
use hitbox_fn::prelude::*;
use hitbox_moka::MokaBackend;
use hitbox_redis::{ConnectionMode, RedisBackend};

use super::Setup;
use crate::library::{Library, Subject};
use crate::load::{Load, LoadError, Profile};

#[cached(prefix = "profile", skip(load))]
async fn load_profile(id: u64, load: Load) -> Result<Profile, LoadError> {
    load.run(id).await
}

type Concurrency = BroadcastConcurrencyManager<Result<Profile, LoadError>>;

struct Hitbox<B>(Cache<B, Concurrency, OffloadManager>);

fn cache<B: CacheBackend>(backend: B, setup: &Setup) -> Hitbox<B> {
    let policy = PolicyConfig::builder().ttl(setup.ttl).concurrency(ConcurrencyLimit::MIN).build();
    let offload = OffloadManager::with_defaults();
    Hitbox(
        Cache::builder()
            .backend(backend)
            .policy(policy)
            .concurrency_manager(Concurrency::new())
            .offload(offload)
            .build(),
    )
}

fn redis(setup: &Setup) -> anyhow::Result<RedisBackend<BincodeFormat>> {
    Ok(RedisBackend::builder().connection(ConnectionMode::single(setup.redis.clone())).build()?)
}

/// Redis alone.
pub(super) fn open_redis(setup: &Setup) -> anyhow::Result<Box<dyn Subject>> {
    Ok(Box::new(cache(redis(setup)?, setup)))
}

/// moka in front of Redis.
pub(super) fn open_tiers(setup: &Setup) -> anyhow::Result<Box<dyn Subject>> {
    let memory = MokaBackend::builder().max_entries(100_000).value_format(BincodeFormat).build();
    let tiers = memory.compose(redis(setup)?, OffloadManager::with_defaults()).refill(RefillPolicy::Always);
    Ok(Box::new(cache(tiers, setup)))
}

impl<B: CacheBackend + Send + Sync + 'static> Library for Hitbox<B> {
    type Key = (u64, hitbox::CacheKey);

    fn key(id: u64) -> Self::Key {
        // The key that `#[cached]` makes of the function's prefix and arguments.
        let parts = vec![KeyPart::new("fn", Some("profile")), KeyPart::new("id", Some(id.to_string()))];
        (id, hitbox::CacheKey::new("", 0, parts))
    }

    async fn read(&self, (id, _): &Self::Key, load: &Load) -> anyhow::Result<u64> {
        Ok(load_profile(*id, load.clone()).cache(&self.0).await?.version)
    }

    async fn invalidate(&self, (_, key): &Self::Key) -> anyhow::Result<()> {
        // The error is not `Sync`.
        let deleted = self.0.backend().delete(key, &mut CacheContext::default().boxed()).await;
        deleted.map(drop).map_err(|error| anyhow::anyhow!("{error}"))
    }
}
