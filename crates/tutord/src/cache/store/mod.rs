//! The cached store: the coordination of writes and invalidations. Each aggregate of the store has its own file.

mod accounts;
mod conversations;
mod exercises;
mod progress;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, join, join_all};
use readthrough::{Cache, ConfigError, Invalidation, Key, LoadError};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use tutord_core::model::change::Change;
use tutord_core::model::progress::{Board, starts_on, utc_day};
use tutord_core::model::{Metric, Period};
use tutord_core::page::{Page, PageRequest, Position};
use tutord_core::store::{Loaded, Progress};
use tutord_core::{Database, Result, Timestamp};

use super::effects::{CacheEffect, effect_of, flushed};
use super::namespaces::Namespaces;
use crate::cache::CacheSettings;

/// The maximum number of changes that one statement acknowledges.
const ACKNOWLEDGED: i64 = 1_000;
/// The number of exercises and of leaderboard entries that are warmed; a leaderboard page has this size by default.
const WARM_EXERCISES: i64 = 100;
const WARM_ENTRIES: i64 = 20;

/// The replacement of one of the values that a write invalidates.
type Replacement = BoxFuture<'static, Invalidation>;

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
    /// Set if values stay in the memory of the process.
    has_l1: bool,
    /// Writes since the last acknowledgement whose invalidation is not complete.
    begun: Mutex<TaskTracker>,
    /// Set when there are changes to acknowledge.
    written: AtomicBool,
}

impl CachedStore {
    /// Creates a cached store in front of a database.
    ///
    /// # Errors
    /// Returns an error if the cache has such namespaces with other options.
    pub fn new(
        store: Arc<dyn Database>,
        cache: Cache,
        settings: &CacheSettings,
        pages: PageSizes,
    ) -> std::result::Result<Self, ConfigError> {
        let namespaces = Arc::new(Namespaces::open(&cache, settings)?);
        let has_l1 = cache.is_enabled() && settings.has_l1();
        Ok(Self { store, cache, namespaces, pages, has_l1, begun: Mutex::default(), written: AtomicBool::new(false) })
    }

    /// Returns a value that the cache returned: shared if it is in memory, where later reads find it.
    fn loaded<V: Clone>(&self, value: Arc<V>) -> Loaded<V> {
        if self.has_l1 { Loaded::Shared(value) } else { Loaded::Fresh(Arc::unwrap_or_clone(value)) }
    }

    /// Returns `true` if the cache is enabled.
    pub(super) fn is_enabled(&self) -> bool {
        self.cache.is_enabled()
    }

    /// Runs a write, then applies the effects that `effects` derives from its outcome. A failed write also invalidates:
    /// after a timeout or a broken connection it may have been committed. The write runs in its own task, so that a
    /// client that disconnects can't prevent the invalidation.
    async fn write<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T>> + Send + 'static,
        effects: impl FnOnce(&Result<T>) -> Vec<CacheEffect> + Send + 'static,
    ) -> Result<T> {
        self.write_and_replace(write, |outcome| (effects(outcome), Vec::new())).await
    }

    /// Runs a write like [`write`](Self::write), and replaces some of the invalidated values with the new ones.
    async fn write_and_replace<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T>> + Send + 'static,
        effects: impl FnOnce(&Result<T>) -> (Vec<CacheEffect>, Vec<Replacement>) + Send + 'static,
    ) -> Result<T> {
        let (cache, namespaces) = (self.cache.clone(), Arc::clone(&self.namespaces));
        let work = querywatch::carry(async move {
            let outcome = write.await;
            let (effects, replacements) = effects(&outcome);
            // Even if the invalidation is deferred, no read of this process returns the old value.
            let _ = join(invalidate(&cache, &namespaces, &effects), join_all(replacements)).await;
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
                // Only the shutdown of the runtime cancels a task.
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
        // Read again: the rows may have changed since, or the process may be connected to another database.
        let load = async |places: Vec<usize>| {
            let exercises = self.store.catalogue_exercises(WARM_EXERCISES).await?;
            let found = |place: usize| exercises.iter().find(|exercise| ids.get(place) == Some(&exercise.id)).cloned();
            Ok::<_, tutord_core::Error>(places.into_iter().map(found).collect())
        };
        self.namespaces.exercises.get_many_or_load(&keys, load).await.map_err(read_error)?;
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
        let mut effects: Vec<CacheEffect> = Vec::new();
        for effect in changes.iter().map(effect_of) {
            if !effects.contains(&effect) {
                effects.push(effect);
            }
        }
        invalidate(&self.cache, &self.namespaces, &effects).await
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
            if self.cache.connection_stats().is_none_or(|link| !link.is_available) {
                // The follower invalidates these changes.
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
async fn invalidate(cache: &Cache, namespaces: &Namespaces, writes: &[CacheEffect]) -> bool {
    let targets: Vec<_> = writes.iter().flat_map(|write| namespaces.targets(*write)).collect();
    let mut told = targets.is_empty() || cache.invalidate(targets).await == Invalidation::Complete;
    for namespace in writes.iter().flat_map(|write| flushed(*write)) {
        // All names belong to opened namespaces.
        told &= matches!(cache.flush(namespace).await, Ok(Invalidation::Complete));
    }
    told
}

/// Returns the error of a cached read. All requests that waited for the same load have it.
fn read_error(error: LoadError<tutord_core::Error>) -> tutord_core::Error {
    match error {
        LoadError::Failed(error) => Arc::unwrap_or_clone(error),
        _ => tutord_core::Error::Timeout,
    }
}

/// Returns the value of a cache result.
fn owned<V: Clone>(found: Option<Arc<V>>) -> Option<V> {
    found.map(Arc::unwrap_or_clone)
}

/// Returns the value of a result of the database.
fn fresh<V: Clone>(found: Option<Loaded<V>>) -> Option<V> {
    found.map(Loaded::into_inner)
}

/// Returns the position and size of a page, as a part of a key.
fn page_member(page: &PageRequest) -> String {
    match page.position {
        Position::Offset(offset) => format!("{}:{offset}", page.limit),
        Position::Cursor(cursor) => format!("{}:{}", page.limit, cursor.encode()),
    }
}

/// Returns an empty page, the fallback for loaders that always return a value.
fn empty_page<T>() -> Page<T> {
    Page { items: Vec::new(), total: 0, has_more: false, next: None, previous: None }
}
