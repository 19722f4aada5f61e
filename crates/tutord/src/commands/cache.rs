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
    let cache = args.cache.build("redis").context("REDIS_URL")?;
    if tokio::time::timeout(CONNECT, cache.until_connected()).await.is_err() {
        bail!("Redis does not answer within {CONNECT:?}");
    }
    match command {
        Command::Stats(_) => {
            let stats = cache.redis().await.context("Redis does not answer")?;
            say!("version            {}", stats.version);
            say!("used_memory        {} bytes", stats.used_memory);
            say!("maxmemory          {} bytes, {}", stats.maxmemory, stats.maxmemory_policy);
            say!("evicted_keys       {}", stats.evicted_keys);
            say!("expired_keys       {}", stats.expired_keys);
            for warning in stats.warnings {
                say!("warning            {warning}");
            }
        }
        Command::Warm(args) => {
            let store = CachedStore::new(open(&args.database).await?, cache, &args.cache);
            say!("Warmed {} values.", store.warm().await.context("warming")?);
        }
        Command::Flush { namespace, args } => {
            // The namespaces are opened with the store.
            let _store = CachedStore::new(open(&args.database).await?, cache.clone(), &args.cache);
            match cache.flush(&namespace).await? {
                Invalidation::Complete => say!("Flushed {namespace}."),
                Invalidation::Deferred => bail!("Redis did not answer: {namespace} is not flushed"),
            }
        }
    }
    Ok(())
}
