//! Statements outside of every scope.

use std::backtrace::Backtrace;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use serde::Serialize;

use crate::events::head;
use crate::location;
use crate::registry::Shape;

/// The maximum number of distinct statements whose origin is stored.
const MAX_ORIGINS: usize = 50;

/// Statements of one shape that one thread issued outside of every scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnscopedStatement {
    /// The shape.
    pub sql: String,
    /// Number of statements.
    pub calls: u64,
    /// The function that started the task or thread that lost the scope, such as `tokio::spawn`; `None` for a test or
    /// main thread.
    pub spawned_by: Option<&'static str>,
    /// The source line of the first statement.
    pub location: Option<String>,
}

impl fmt::Display for UnscopedStatement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.calls, head(&self.sql, 200))?;
        if let Some(spawner) = self.spawned_by {
            write!(f, " in {spawner}")?;
        }
        self.location.as_ref().map_or(Ok(()), |location| write!(f, " at {location}"))
    }
}

/// Counts statements outside of every scope.
#[derive(Debug)]
pub(crate) struct UnscopedLog {
    count: AtomicU64,
    origins: Mutex<Vec<Origin>>,
}

#[derive(Debug)]
struct Origin {
    shape: Arc<Shape>,
    thread: ThreadId,
    calls: u64,
    /// The value of the counter at the last statement.
    last: u64,
    trace: Arc<Backtrace>,
}

/// The statements of all watches of the process, while a [`ProcessReader`] exists or origins are captured.
static PROCESS: UnscopedLog = UnscopedLog::new();
/// The number of readers of [`PROCESS`].
static READERS: AtomicUsize = AtomicUsize::new(0);

/// A scope without a watch, which reads the statements of all watches.
#[derive(Debug)]
pub(crate) struct ProcessReader(());

impl ProcessReader {
    pub(crate) fn new() -> Self {
        READERS.fetch_add(1, Ordering::AcqRel);
        Self(())
    }

    pub(crate) fn log(&self) -> &'static UnscopedLog {
        &PROCESS
    }
}

impl Drop for ProcessReader {
    fn drop(&mut self) {
        READERS.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Counts a statement of a watch, and in the process if anything reads that. Stores its origin if `capture_origin` is set.
pub(crate) fn add(watch: &UnscopedLog, shape: &Arc<Shape>, capture_origin: bool) {
    watch.add(shape, capture_origin);
    // A counter that all threads increment costs more than one that they only read.
    if capture_origin || READERS.load(Ordering::Acquire) > 0 {
        PROCESS.add(shape, capture_origin);
    }
}

impl UnscopedLog {
    pub(crate) const fn new() -> Self {
        Self { count: AtomicU64::new(0), origins: Mutex::new(Vec::new()) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts a statement. Stores its origin if `capture_origin` is set.
    fn add(&self, shape: &Arc<Shape>, capture_origin: bool) {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if !capture_origin {
            return;
        }
        let thread = std::thread::current().id();
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        match origins.iter_mut().find(|origin| origin.thread == thread && origin.shape.id == shape.id) {
            Some(origin) => (origin.calls, origin.last) = (origin.calls + 1, count),
            None => {
                if origins.len() >= MAX_ORIGINS {
                    let oldest =
                        origins.iter().enumerate().min_by_key(|(_, origin)| origin.last).map(|(index, _)| index);
                    oldest.map(|index| origins.swap_remove(index));
                }
                let trace = Arc::new(Backtrace::force_capture());
                origins.push(Origin { shape: Arc::clone(shape), thread, calls: 1, last: count, trace });
            }
        }
    }

    /// Returns the stored statements that ran after the counter had this value.
    pub(crate) fn since(&self, count: u64) -> Vec<UnscopedStatement> {
        let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let recent: Vec<_> = origins
            .iter()
            .filter(|origin| origin.last > count)
            // At most this many of its statements ran since then.
            .map(|origin| {
                (origin.shape.sql.to_string(), origin.calls.min(origin.last - count), Arc::clone(&origin.trace))
            })
            .collect();
        drop(origins);
        let describe = |(sql, calls, trace): (String, u64, Arc<Backtrace>)| {
            let (spawned_by, location) = location::find_with_spawner(&trace);
            UnscopedStatement { sql, calls, spawned_by, location }
        };
        recent.into_iter().map(describe).collect()
    }
}

/// Describes statements outside of every scope, for the message of a failed assertion.
pub(crate) fn describe(count: u64, statements: &[UnscopedStatement]) -> String {
    if count == 0 {
        return String::new();
    }
    let list: String = statements.iter().map(|statement| format!("\n    {statement}")).collect();
    format!(
        "\n  {count} statements ran outside of every scope; bind tasks and threads with in_current_scope or \
         in_current_scope_sync{list}"
    )
}
