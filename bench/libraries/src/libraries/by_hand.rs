//! Redis without a library.

use redis::AsyncCommands as _;
use redis::aio::{ConnectionManager, MultiplexedConnection};

use super::Setup;
use crate::library::Library;
use crate::load::{Load, Profile};

fn name(id: u64) -> String {
    format!("v1:profile:{{{id}}}")
}

/// `GET` and decoding, and nothing else.
pub(super) struct BareGet {
    connection: MultiplexedConnection,
    ttl: u64,
}

impl BareGet {
    pub(super) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        let client = redis::Client::open(setup.redis.as_str())?;
        Ok(Self { connection: client.get_multiplexed_async_connection().await?, ttl: setup.ttl.as_secs() })
    }
}

impl Library for BareGet {
    type Key = (u64, String);

    fn key(id: u64) -> Self::Key {
        (id, name(id))
    }

    async fn read(&self, (id, key): &Self::Key, load: &Load) -> anyhow::Result<u64> {
        let mut connection = self.connection.clone();
        let found: Option<Vec<u8>> = connection.get(key).await?;
        if let Some(bytes) = found {
            return Ok(rmp_serde::from_slice::<Profile>(&bytes)?.version);
        }
        let profile = load.clone().run(*id).await?;
        connection.set_ex::<_, _, ()>(key, rmp_serde::to_vec_named(&profile)?, self.ttl).await?;
        Ok(profile.version)
    }

    async fn invalidate(&self, (_, key): &Self::Key) -> anyhow::Result<()> {
        Ok(self.connection.clone().del(key).await?)
    }
}

/// `GET`, on a miss the query and `SETEX`, and `DEL` after a write. A read that can't reach Redis runs the query.
pub(super) struct ByHand {
    connection: ConnectionManager,
    ttl: u64,
}

impl ByHand {
    pub(super) async fn open(setup: &Setup) -> anyhow::Result<Self> {
        let client = redis::Client::open(setup.redis.as_str())?;
        Ok(Self { connection: client.get_connection_manager().await?, ttl: setup.ttl.as_secs() })
    }
}

impl Library for ByHand {
    type Key = (u64, String);

    fn key(id: u64) -> Self::Key {
        (id, name(id))
    }

    async fn read(&self, (id, key): &Self::Key, load: &Load) -> anyhow::Result<u64> {
        let mut connection = self.connection.clone();
        let found: redis::RedisResult<Option<Vec<u8>>> = connection.get(key).await;
        if let Ok(Some(bytes)) = &found
            && let Ok(profile) = rmp_serde::from_slice::<Profile>(bytes)
        {
            return Ok(profile.version);
        }
        let profile = load.clone().run(*id).await?;
        if found.is_ok() {
            // A value that can't be stored is loaded again by the next read.
            let _ = connection.set_ex::<_, _, ()>(key, rmp_serde::to_vec_named(&profile)?, self.ttl).await;
        }
        Ok(profile.version)
    }

    async fn invalidate(&self, (_, key): &Self::Key) -> anyhow::Result<()> {
        Ok(self.connection.clone().del(key).await?)
    }
}
