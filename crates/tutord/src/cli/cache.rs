//! `tutord cache`: shows, warms and flushes the cache in Redis.

use std::time::Duration;

use anyhow::{Context as _, bail};
use readthrough::Invalidation;

use super::open;
use crate::cache::{CacheSettings, CachedStore};
use crate::config::DatabaseSettings;
use crate::state::PAGE_SIZES;

/// The timeout for connecting to Redis.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Subcommand)]
pub(super) enum CacheCommand {
    /// Show the statistics of Redis, and warn of settings that do not suit a cache.
    Stats(CacheArgs),
    /// Load frequently read values into the cache: catalogue exercises and leaderboards.
    Warm(CacheArgs),
    /// Invalidate all values of a namespace at once. All processes reload them.
    Flush {
        /// The namespace, such as `user:profile`; `GET /api/admin/cache` lists them.
        namespace: String,
        #[command(flatten)]
        args: CacheArgs,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct CacheArgs {
    #[command(flatten)]
    cache: CacheSettings,
    #[command(flatten)]
    database: DatabaseSettings,
}

pub(super) async fn run(command: CacheCommand) -> anyhow::Result<()> {
    let (CacheCommand::Stats(args) | CacheCommand::Warm(args) | CacheCommand::Flush { args, .. }) = &command;
    if args.cache.redis_url.is_none() {
        bail!(
            "REDIS_URL is not set: without Redis each process has its own in-memory cache, which other processes can't reach"
        );
    }
    if let CacheCommand::Stats(args) = &command {
        return stats(&args.cache).await;
    }
    // Cache keys contain the database's identity.
    let store = open(&args.database).await?;
    let identity = store.database_identity().await.context("reading the database's identity")?.with_context(|| {
        format!(
            "the cache has no values of this {} database: it has no tables, is in recovery, or was never opened by `tutord serve`",
            store.backend()
        )
    })?;
    let cache = args.cache.build("redis", Some(&identity)).context("REDIS_URL")?;
    if tokio::time::timeout(CONNECT_TIMEOUT, cache.until_connected()).await.is_err() {
        bail!("no response from redis within {CONNECT_TIMEOUT:?}; check REDIS_URL and that Redis runs");
    }
    match command {
        CacheCommand::Stats(_) => {}
        CacheCommand::Warm(args) => {
            let store = CachedStore::new(store, cache, &args.cache, PAGE_SIZES)?;
            say!("Warmed {} values.", store.warm().await.context("warming the cache")?);
        }
        CacheCommand::Flush { namespace, args } => {
            // Opening the store registers the namespaces.
            let _store = CachedStore::new(store, cache.clone(), &args.cache, PAGE_SIZES)?;
            match cache.flush(&namespace).await? {
                Invalidation::Complete => say!("Flushed {namespace}."),
                Invalidation::Deferred => {
                    bail!("no response from redis: {namespace} is not flushed; retry the command")
                }
            }
        }
    }
    Ok(())
}

/// Prints the statistics of Redis. Does not open the database.
async fn stats(config: &CacheSettings) -> anyhow::Result<()> {
    let cache = config.build("redis", None).context("REDIS_URL")?;
    let answer = async {
        loop {
            match cache.redis_stats().await {
                Some(stats) => return stats,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let stats = tokio::time::timeout(CONNECT_TIMEOUT, answer).await;
    let stats = stats.map_err(|_| {
        anyhow::anyhow!("no response from redis within {CONNECT_TIMEOUT:?}; check REDIS_URL and that Redis runs")
    })?;
    say!("version            {}", stats.version);
    say!("used_memory        {} bytes", stats.used_memory);
    say!("maxmemory          {} bytes, {}", stats.maxmemory, stats.maxmemory_policy);
    say!("evicted_keys       {}", stats.evicted_keys);
    say!("expired_keys       {}", stats.expired_keys);
    for warning in stats.warnings {
        say!("warning            {warning}");
    }
    Ok(())
}
