//! The cached store: the coordination of writes and invalidations. Each aggregate of the store has its own file.

mod accounts;
mod conversations;
mod exercises;
mod progress;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, join, join_all};
use readthrough::{Cache, Invalidation, Key};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use tutord_core::model::change::Change;
use tutord_core::model::progress::{Board, starts_on, utc_day};
use tutord_core::model::{Metric, Period};
use tutord_core::page::{Page, PageRequest, Position};
use tutord_core::store::Progress;
use tutord_core::{Database, Result, Timestamp};

use super::namespaces::Namespaces;
use super::writes::{Write, flushed, noted};
use crate::cache::CacheSettings;

/// The maximum number of changes that one statement acknowledges.
const ACKNOWLEDGED: i64 = 1_000;
/// The number of exercises and of leaderboard entries that are warmed; a leaderboard page has this size by default.
const WARM_EXERCISES: i64 = 100;
const WARM_ENTRIES: i64 = 20;

/// The replacement of one of the values that a write invalidates.
type Put = BoxFuture<'static, Invalidation>;

/// The page sizes of the pages that a message replaces in the cache instead of removing them.
#[derive(Debug, Clone, Copy)]
pub struct PageSizes {
    /// The default size of a page of conversations.
    pub conversations: i64,
    /// The default size of a page of messages.
    pub messages: i64,
}

/// A [`Store`](tutord_core::Store) that caches frequent reads and invalidates them on writes.
pub struct CachedStore {
    store: Arc<dyn Database>,
    cache: Cache,
    namespaces: Arc<Namespaces>,
    pages: PageSizes,
    /// Writes since the last acknowledgement whose invalidation is not complete.
    begun: Mutex<TaskTracker>,
    /// Set when there are changes to acknowledge.
    written: AtomicBool,
}

impl CachedStore {
    /// Creates a cached store in front of a database.
    pub fn new(store: Arc<dyn Database>, cache: Cache, settings: &CacheSettings, pages: PageSizes) -> Self {
        let namespaces = Arc::new(Namespaces::open(&cache, settings));
        Self { store, cache, namespaces, pages, begun: Mutex::default(), written: AtomicBool::new(false) }
    }

    /// Returns `true` if the cache is enabled.
    pub(super) fn is_enabled(&self) -> bool {
        self.cache.is_enabled()
    }

    /// Runs a write, then invalidates the keys that `writes` derives from its outcome. A failed write also invalidates:
    /// after a timeout or a broken connection it may have been committed. The write runs in its own task, so that a
    /// client that disconnects can't prevent the invalidation.
    async fn write<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T>> + Send + 'static,
        writes: impl FnOnce(&Result<T>) -> Vec<Write> + Send + 'static,
    ) -> Result<T> {
        self.write_and_put(write, |outcome| (writes(outcome), Vec::new())).await
    }

    /// Runs a write like [`write`](Self::write), and replaces some of the invalidated values with the new ones.
    async fn write_and_put<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T>> + Send + 'static,
        writes: impl FnOnce(&Result<T>) -> (Vec<Write>, Vec<Put>) + Send + 'static,
    ) -> Result<T> {
        let (cache, namespaces) = (self.cache.clone(), Arc::clone(&self.namespaces));
        let work = querywatch::carry(async move {
            let outcome = write.await;
            let (writes, puts) = writes(&outcome);
            // Deferred or complete: no read of this process finds the old value.
            let _ = join(invalidate(&cache, &namespaces, &writes), join_all(puts)).await;
            outcome
        });
        let task = {
            let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            self.written.store(true, Ordering::Release);
            begun.spawn(work.in_current_span())
        };
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels it.
                Err(error) => Err(tutord_core::Error::Unavailable(error.to_string())),
            },
        }
    }

    /// Loads catalogue exercises and the first leaderboard pages into the cache. Returns the number of loaded values.
    ///
    /// # Errors
    /// Returns the errors of the database.
    pub async fn warm(&self) -> Result<usize> {
        if !self.cache.is_enabled() {
            return Ok(0);
        }
        let exercises = self.store.catalogue_exercises(WARM_EXERCISES).await?;
        let ids: Vec<i64> = exercises.iter().map(|exercise| exercise.id).collect();
        let keys: Vec<Key> = ids.iter().map(Key::new).collect();
        // Read once more: what was read before the cache was asked may have changed, or be of another database.
        let load = async |places: Vec<usize>| {
            let exercises = self.store.catalogue_exercises(WARM_EXERCISES).await?;
            let found = |place: usize| exercises.iter().find(|exercise| ids.get(place) == Some(&exercise.id)).cloned();
            Ok::<_, tutord_core::Error>(places.into_iter().map(found).collect())
        };
        self.namespaces.exercises.get_many_or_load(&keys, load).await?;
        let today = utc_day(Timestamp::now());
        let mut warmed = keys.len();
        for metric in Metric::ALL {
            for period in [Period::All, Period::Weekly, Period::Monthly] {
                let board =
                    Board { metric: *metric, period, starts_on: starts_on(period, today), language: String::new() };
                self.leaderboard(&board, &PageRequest::first(WARM_ENTRIES)).await?;
                warmed += 1;
            }
        }
        Ok(warmed)
    }

    /// Invalidates changes by others. Returns `true` if Redis has applied all invalidations.
    pub(super) async fn apply(&self, changes: &[Change]) -> bool {
        let mut writes: Vec<Write> = Vec::new();
        for write in changes.iter().map(noted) {
            if !writes.contains(&write) {
                writes.push(write);
            }
        }
        invalidate(&self.cache, &self.namespaces, &writes).await
    }

    /// Acknowledges the changes that this process has made and invalidated, so that no other process invalidates them
    /// again.
    ///
    /// All changes recorded at the start of this call come from writes that began earlier. When these writes have ended
    /// and no invalidation of Redis is pending, all of them are invalidated.
    pub(super) async fn acknowledge(&self) -> Result<()> {
        if !self.written.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let outcome = loop {
            let ids = match self.store.own_changes(ACKNOWLEDGED).await {
                Ok(ids) if !ids.is_empty() => ids,
                other => break other.map(drop),
            };
            let begun = {
                let mut current = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *current)
            };
            begun.close();
            begun.wait().await;
            if self.cache.link().is_none_or(|link| !link.up) {
                // Left to whoever follows.
                return Ok(());
            }
            if let Err(error) = self.store.acknowledge_changes(&ids).await {
                break Err(error);
            }
        };
        if outcome.is_err() {
            self.written.store(true, Ordering::Release);
        }
        outcome
    }
}

/// Invalidates the keys of a write. Returns `true` if Redis has applied all invalidations.
async fn invalidate(cache: &Cache, namespaces: &Namespaces, writes: &[Write]) -> bool {
    let targets: Vec<_> = writes.iter().flat_map(|write| namespaces.targets(*write)).collect();
    let mut told = targets.is_empty() || cache.invalidate(targets).await == Invalidation::Complete;
    for namespace in writes.iter().flat_map(|write| flushed(*write)) {
        // Their names are those that were opened.
        told &= matches!(cache.flush(namespace).await, Ok(Invalidation::Complete));
    }
    told
}

/// Returns the value of a cache result.
fn owned<V: Clone>(found: Option<Arc<V>>) -> Option<V> {
    found.map(Arc::unwrap_or_clone)
}

/// Returns the position and size of a page, as a part of a key.
fn page_member(page: &PageRequest) -> String {
    match page.position {
        Position::Offset(offset) => format!("{}:{offset}", page.limit),
        Position::Cursor(cursor) => format!("{}:{}", page.limit, cursor.encode()),
    }
}

/// Returns an empty page, the fallback for loaders that always return a value.
fn none<T>() -> Page<T> {
    Page { items: Vec::new(), total: 0, has_more: false, next: None, previous: None }
}
