//! The database with the cache before it: how writes and their invalidations hang together here, the aggregates of
//! the store in a file each.

mod accounts;
mod administration;
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
use tutord_store::model::change::Change;
use tutord_store::model::progress::{Board, starts_on, utc_day};
use tutord_store::model::{Metric, Period};
use tutord_store::page::{Page, PageRequest, Position};
use tutord_store::store::Progress;
use tutord_store::{Result, Store, Timestamp};

use super::namespaces::Namespaces;
use super::writes::{Write, flushed, noted};
use crate::config::CacheConfig;

/// The most changes that are acknowledged with one statement.
const ACKNOWLEDGED: i64 = 1_000;
/// What is warmed: exercises, and entries of each leaderboard (the size of a page unless asked otherwise).
const WARM_EXERCISES: i64 = 100;
const WARM_ENTRIES: i64 = 20;

/// The replacement of one value, and of nothing else that a write made unusable.
type Put = BoxFuture<'static, Invalidation>;

/// A [`Store`] whose frequent reads are cached and whose writes make what they change unusable.
pub struct CachedStore {
    store: Arc<dyn Store>,
    cache: Cache,
    namespaces: Arc<Namespaces>,
    /// Writes that have begun and are not yet invalidated, since the last acknowledgement.
    begun: Mutex<TaskTracker>,
    /// Whether there is something to acknowledge.
    written: AtomicBool,
}

impl CachedStore {
    /// Puts a cache before a database.
    pub fn new(store: Arc<dyn Store>, cache: Cache, config: &CacheConfig) -> Self {
        let namespaces = Arc::new(Namespaces::open(&cache, config));
        Self { store, cache, namespaces, begun: Mutex::default(), written: AtomicBool::new(false) }
    }

    /// Writes, and then makes unusable what `writes` finds in the outcome, or in the failure: one that comes from a
    /// time-out or a broken connection may have been committed. In a task of its own, so that a client who goes
    /// away can't come between the two.
    async fn write<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T>> + Send + 'static,
        writes: impl FnOnce(&Result<T>) -> Vec<Write> + Send + 'static,
    ) -> Result<T> {
        self.write_and_put(write, |outcome| (writes(outcome), Vec::new())).await
    }

    /// The same, and puts what the write left in the place of some values that it made unusable.
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
                Err(error) => Err(tutord_store::Error::Unavailable(error.to_string())),
            },
        }
    }

    /// Reads what will be asked for first: exercises of the catalogue, and the first pages of leaderboards. Returns
    /// how many values these are.
    ///
    /// # Errors
    /// Those of the database.
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
            Ok::<_, tutord_store::Error>(places.into_iter().map(found).collect())
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

    /// Makes unusable what others have changed; whether Redis has been told of all of it.
    pub(super) async fn apply(&self, changes: &[Change]) -> bool {
        let mut writes: Vec<Write> = Vec::new();
        for write in changes.iter().map(noted) {
            if !writes.contains(&write) {
                writes.push(write);
            }
        }
        invalidate(&self.cache, &self.namespaces, &writes).await
    }

    /// Acknowledges the changes that this process has made and invalidated, so that nobody else acts on them.
    ///
    /// What is noted when this begins was written by writes that had begun before: when all of these have ended and
    /// Redis is owed nothing, all of it is invalidated.
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

/// Makes unusable what the table says; whether Redis has been told of all of it.
async fn invalidate(cache: &Cache, namespaces: &Namespaces, writes: &[Write]) -> bool {
    let targets: Vec<_> = writes.iter().flat_map(|write| namespaces.targets(*write)).collect();
    let mut told = targets.is_empty() || cache.invalidate(targets).await == Invalidation::Complete;
    for namespace in writes.iter().flat_map(|write| flushed(*write)) {
        // Their names are those that were opened.
        told &= matches!(cache.flush(namespace).await, Ok(Invalidation::Complete));
    }
    told
}

/// The value behind what the cache gave.
fn owned<V: Clone>(found: Option<Arc<V>>) -> Option<V> {
    found.map(Arc::unwrap_or_clone)
}

/// A page's place and size, as a part of a key.
fn page_member(page: &PageRequest) -> String {
    match page.position {
        Position::Offset(offset) => format!("{}:{offset}", page.limit),
        Position::Cursor(cursor) => format!("{}:{}", page.limit, cursor.encode()),
    }
}

/// What a loader that always finds something never gives.
fn none<T>() -> Page<T> {
    Page { items: Vec::new(), total: 0, has_more: false, next: None, previous: None }
}
