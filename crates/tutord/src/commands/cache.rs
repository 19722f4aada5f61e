//! `tutord cache`: what Redis holds.

use std::time::Duration;

use anyhow::{Context as _, bail};
use readthrough::Invalidation;

use super::open;
use crate::cache::CachedStore;
use crate::config::{CacheConfig, DatabaseConfig};

/// How long Redis may take to be connected to.
const CONNECT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show what Redis says of itself, and warn of settings that do not suit a cache.
    Stats(Args),
    /// Read ahead what will be asked for first: exercises of the catalogue, and leaderboards.
    Warm(Args),
    /// Make all values of a namespace unusable, in one step; every process loads them anew.
    Flush {
        /// Such as `user:profile`; `GET /api/admin/cache` lists them.
        namespace: String,
        #[command(flatten)]
        args: Args,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cache: CacheConfig,
    #[command(flatten)]
    database: DatabaseConfig,
}

pub(super) async fn run(command: Command) -> anyhow::Result<()> {
    let (Command::Stats(args) | Command::Warm(args) | Command::Flush { args, .. }) = &command;
    if args.cache.redis_url.is_none() {
        bail!("REDIS_URL is not set: without Redis each process has a cache of its own, which ends with it");
    }
    if let Command::Stats(args) = &command {
        return stats(&args.cache).await;
    }
    // The names of what is cached are those of this database.
    let store = open(&args.database).await?;
    let identity = store.database_identity().await.context("reading which database this is")?.with_context(|| {
        format!(
            "nothing is cached of this {} database: it has no tables, is in recovery, or was never served",
            store.backend()
        )
    })?;
    let cache = args.cache.build("redis", Some(&identity)).context("REDIS_URL")?;
    if tokio::time::timeout(CONNECT, cache.until_connected()).await.is_err() {
        bail!("Redis does not answer within {CONNECT:?}");
    }
    match command {
        Command::Stats(_) => {}
        Command::Warm(args) => {
            let store = CachedStore::new(store, cache, &args.cache);
            say!("Warmed {} values.", store.warm().await.context("warming")?);
        }
        Command::Flush { namespace, args } => {
            // The namespaces are opened with the store.
            let _store = CachedStore::new(store, cache.clone(), &args.cache);
            match cache.flush(&namespace).await? {
                Invalidation::Complete => say!("Flushed {namespace}."),
                Invalidation::Deferred => bail!("Redis did not answer: {namespace} is not flushed"),
            }
        }
    }
    Ok(())
}

/// Prints what Redis says of itself, whichever database it is for.
async fn stats(config: &CacheConfig) -> anyhow::Result<()> {
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
    let stats = stats.map_err(|_| anyhow::anyhow!("Redis does not answer within {CONNECT:?}"))?;
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
