//! Recording of statements of any driver.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::context;
use crate::events::Outcome;
use crate::watch::Watch;

impl Watch {
    /// Records a statement that ended now, in the current scope.
    ///
    /// `sql` may contain values: querywatch stores only its shape. `rows` is the number of rows that the statement returned
    /// or changed, if it is known. A known text takes a hash, a shared lock and no allocation; the shapes of at most 512
    /// texts are cached.
    ///
    /// ```
    /// use std::time::Duration;
    /// use querywatch::{Outcome, Scope, Watch};
    ///
    /// let watch = Watch::builder().build();
    /// let (_, report) = Scope::new(&watch, "GET /").run_sync(|| {
    ///     watch.record("SELECT name FROM users WHERE id = 7", Duration::from_millis(2), Outcome::Finished, Some(1));
    /// });
    /// assert_eq!(report.shapes()[0].sql, "SELECT name FROM users WHERE id = ?");
    /// ```
    pub fn record(&self, sql: &str, duration: Duration, outcome: Outcome, rows: Option<u64>) {
        let (text, cached) = self.0.shape_of(sql);
        context::count(&self.0, &cached.shape, (!cached.has_parameters).then_some(text));
        context::complete(&self.0, &cached.shape, Instant::now(), duration, outcome, rows);
    }

    /// Runs a future that executes one statement, and records the statement with its duration and outcome.
    ///
    /// Works with any asynchronous driver. A future that is dropped before its end is recorded as
    /// [`Outcome::Cancelled`].
    pub async fn timed<T, E>(&self, sql: &str, future: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut guard = TimedStatement { watch: self, sql, start: Instant::now(), outcome: Outcome::Cancelled };
        let result = future.await;
        guard.outcome = outcome_of(&result);
        result
    }

    /// Runs a closure that executes one statement, and records the statement with its duration and outcome. Works with any
    /// synchronous driver.
    pub fn timed_sync<T, E>(&self, sql: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut guard = TimedStatement { watch: self, sql, start: Instant::now(), outcome: Outcome::Cancelled };
        let result = work();
        guard.outcome = outcome_of(&result);
        result
    }
}

/// Records its statement when it is dropped.
struct TimedStatement<'a> {
    watch: &'a Watch,
    sql: &'a str,
    start: Instant,
    outcome: Outcome,
}

impl Drop for TimedStatement<'_> {
    fn drop(&mut self) {
        self.watch.record(self.sql, self.start.elapsed(), self.outcome, None);
    }
}

const fn outcome_of<T, E>(result: &Result<T, E>) -> Outcome {
    if result.is_ok() { Outcome::Finished } else { Outcome::Failed }
}
