//! `tutord cache`: shows, warms and flushes the cache in Redis.

use std::time::Duration;

use anyhow::{Context as _, bail};
use readthrough::Invalidation;

use super::open;
use crate::cache::{CacheSettings, CachedStore};
use crate::config::DatabaseSettings;
use crate::state::PAGE_SIZES;

/// The timeout for connecting to Redis.
const CONNECT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show the statistics of Redis, and warn of settings that do not suit a cache.
    Stats(Args),
    /// Load the values that are read first into the cache: catalogue exercises and leaderboards.
    Warm(Args),
    /// Invalidate all values of a namespace at once; every process reloads them.
    Flush {
        /// The namespace, such as `user:profile`; `GET /api/admin/cache` lists them.
        namespace: String,
        #[command(flatten)]
        args: Args,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cache: CacheSettings,
    #[command(flatten)]
    database: DatabaseSettings,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    let (Command::Stats(args) | Command::Warm(args) | Command::Flush { args, .. }) = &command;
    if args.cache.redis_url.is_none() {
        bail!(
            "REDIS_URL is not set: without Redis each process has its own in-memory cache, which other processes can't reach"
        );
    }
    if let Command::Stats(args) = &command {
        return stats(&args.cache).await;
    }
    // The cache keys contain the identity of this database.
    let store = open(&args.database).await?;
    let identity = store.database_identity().await.context("reading the database's identity")?.with_context(|| {
        format!(
            "nothing of this {} database is cached: it has no tables, is in recovery, or `tutord serve` has never run on it",
            store.backend()
        )
    })?;
    let cache = args.cache.build("redis", Some(&identity)).context("REDIS_URL")?;
    if tokio::time::timeout(CONNECT, cache.until_connected()).await.is_err() {
        bail!("redis did not answer within {CONNECT:?}; check REDIS_URL and that Redis runs");
    }
    match command {
        Command::Stats(_) => {}
        Command::Warm(args) => {
            let store = CachedStore::new(store, cache, &args.cache, PAGE_SIZES);
            say!("Warmed {} values.", store.warm().await.context("warming the cache")?);
        }
        Command::Flush { namespace, args } => {
            // Opening the store registers the namespaces.
            let _store = CachedStore::new(store, cache.clone(), &args.cache, PAGE_SIZES);
            match cache.flush(&namespace).await? {
                Invalidation::Complete => say!("Flushed {namespace}."),
                Invalidation::Deferred => bail!("redis did not answer: {namespace} is not flushed; try again"),
            }
        }
    }
    Ok(())
}

/// Prints the statistics of Redis; needs no database.
async fn stats(config: &CacheSettings) -> anyhow::Result<()> {
    let cache = config.build("redis", None).context("REDIS_URL")?;
    let answer = async {
        loop {
            match cache.redis().await {
                Some(stats) => return stats,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let stats = tokio::time::timeout(CONNECT, answer).await;
    let stats = stats
        .map_err(|_| anyhow::anyhow!("redis did not answer within {CONNECT:?}; check REDIS_URL and that Redis runs"))?;
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
