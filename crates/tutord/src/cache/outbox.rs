//! Invalidates changes that no running tutord process has invalidated: SQL typed into `psql`, and writes of a process
//! that was killed between commit and invalidation. On SQLite, any write by another process flushes the cache.
//!
//! One process of the cluster follows the changes; its invalidations reach the other processes through Redis.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tutord_core::Timestamp;
use tutord_core::operations::{ChangeFeed, Operations};

use super::CachedStore;
use crate::background::Background;

/// The interval at which a process tries to become the follower, also after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// The interval at which a process acknowledges its own writes: well within the grace period.
const ACKNOWLEDGE: Duration = Duration::from_millis(500);
/// The maximum number of changes in a batch.
const BATCH: i64 = 1_000;
/// The interval at which unfollowed changes are removed, and the batch size of one statement.
const PURGE: Duration = Duration::from_secs(60);
const PURGED: i64 = 10_000;

/// Starts the tasks, which end at shutdown. `longest_ttl` is the longest time to live of a cached value.
pub(crate) fn spawn(
    background: &Background,
    store: Arc<CachedStore>,
    operations: Arc<dyn Operations>,
    longest_ttl: Duration,
) {
    if !store.is_enabled() {
        background.spawn(purge(background.clone(), operations, longest_ttl));
        return;
    }
    let acknowledging = Arc::clone(&store);
    let stop = background.shutdown.clone();
    background.spawn(async move {
        // Acknowledge once more at the end, so that no other process invalidates these writes again.
        while stop.run_until_cancelled(sleep(ACKNOWLEDGE)).await.is_some() {
            acknowledge(&acknowledging).await;
        }
        acknowledge(&acknowledging).await;
    });
    let stop = background.shutdown.clone();
    background.spawn(async move {
        stop.run_until_cancelled(async {
            loop {
                match operations.follow_changes().await {
                    Ok(Some(feed)) => follow(&store, feed).await,
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "could not follow changes of the database; retrying"),
                }
                sleep(RETRY).await;
            }
        })
        .await;
    });
}

async fn acknowledge(store: &CachedStore) {
    if let Err(error) = store.acknowledge().await {
        tracing::warn!(%error, "could not acknowledge own writes; other processes invalidate them again");
    }
}

/// Applies changes until the connection is lost, or until this process loses Redis while another process may still have
/// it.
async fn follow(store: &CachedStore, mut feed: Box<dyn ChangeFeed>) {
    tracing::info!("following changes of the database by others");
    loop {
        let outcome = async {
            let changes = feed.next(BATCH).await?;
            if !store.apply(&changes).await {
                return Ok(false);
            }
            if !changes.is_empty() {
                feed.acknowledge(&changes).await?;
                tracing::debug!(changes = changes.len(), "invalidated the changes of others");
            }
            Ok::<_, tutord_core::Error>(true)
        };
        match outcome.await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "lost the connection that follows changes of the database; reconnecting");
                return;
            }
        }
    }
}

/// Removes changes while no cache is enabled. A process with a cache may start later, but values in Redis from before a
/// change expire with their time to live, and the change is not needed after that.
async fn purge(background: Background, operations: Arc<dyn Operations>, longest_ttl: Duration) {
    while background.shutdown.run_until_cancelled(sleep(PURGE)).await.is_some() {
        let before = Timestamp::now() - longest_ttl;
        background.drain("changes that nobody follows", || operations.purge_changes(before, PURGED)).await;
    }
}
