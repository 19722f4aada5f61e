//! Acts on what the database notes of changes that no process of tutord answers for: SQL typed into `psql`, and
//! writes of a process that was killed between its commit and the invalidation. Of SQLite's file it is only known that
//! another process wrote: everything is flushed then.
//!
//! One process of the cluster follows; invalidations reach the others by Redis as always.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tutord_store::Timestamp;
use tutord_store::store::{ChangeFeed, Outbox as _};

use super::CachedStore;
use crate::app::App;
use crate::ops::background::drain;

/// How often a process that does not follow tries to, and how long one waits that has failed.
const RETRY: Duration = Duration::from_secs(1);
/// How often own writes are acknowledged: well within the grace that others give.
const ACKNOWLEDGE: Duration = Duration::from_millis(500);
/// The most changes that are acted on at once.
const BATCH: i64 = 1_000;
/// How often changes that nobody follows are removed, and how many with one statement.
const PURGE: Duration = Duration::from_secs(60);
const PURGED: i64 = 10_000;

/// Starts the tasks; they end at shutdown.
pub(crate) fn spawn(app: &App, store: Arc<CachedStore>) {
    if !app.cache.is_enabled() {
        app.tasks.spawn(purge(app.clone()));
        return;
    }
    let acknowledging = Arc::clone(&store);
    let stop = app.shutdown.clone();
    app.tasks.spawn(async move {
        // Once more at the end: what is left to others takes them a second reading.
        while stop.run_until_cancelled(sleep(ACKNOWLEDGE)).await.is_some() {
            acknowledge(&acknowledging).await;
        }
        acknowledge(&acknowledging).await;
    });
    let stop = app.shutdown.clone();
    app.tasks.spawn(async move {
        stop.run_until_cancelled(async {
            loop {
                match store.follow_changes().await {
                    Ok(Some(feed)) => follow(&store, feed).await,
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "changes of the database can't be followed; trying again"),
                }
                sleep(RETRY).await;
            }
        })
        .await;
    });
}

async fn acknowledge(store: &CachedStore) {
    if let Err(error) = store.acknowledge().await {
        tracing::warn!(%error, "own writes could not be acknowledged; others act on them once more");
    }
}

/// Acts on changes until the connection is lost, or this process has lost Redis and another may not have.
async fn follow(store: &CachedStore, mut feed: Box<dyn ChangeFeed>) {
    tracing::info!("following what others change in the database");
    loop {
        let outcome = async {
            let changes = feed.next(BATCH).await?;
            if !store.apply(&changes).await {
                return Ok(false);
            }
            if !changes.is_empty() {
                feed.done(&changes).await?;
                tracing::debug!(changes = changes.len(), "acted on changes of others");
            }
            Ok::<_, tutord_store::Error>(true)
        };
        match outcome.await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "changes of the database are not followed any more; trying again");
                return;
            }
        }
    }
}

/// Without a cache there is nothing to act on, but a process with it may start later: what is kept in Redis from
/// before a change is gone when its time to live is over, and so is the need to know of the change.
async fn purge(app: App) {
    let longest = Duration::from_secs(app.config.cache.longest_ttl());
    while app.shutdown.run_until_cancelled(sleep(PURGE)).await.is_some() {
        let before = Timestamp::now() - longest;
        drain(&app, "changes that nobody follows", || app.store.purge_changes(before, PURGED)).await;
    }
}
