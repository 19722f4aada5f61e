//! The report of a scope.

use std::sync::Arc;
use std::time::Duration;

use crate::events::{Finding, head};
use crate::round_trips::RoundTrips;
use crate::scope_state::{ScopeState, ShapeCalls};
use crate::unscoped;

/// The statements and findings of a scope.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// Number of statements, including those of inner scopes. `BEGIN`, `COMMIT` and `ROLLBACK` are round trips and count.
    pub statements: u32,
    /// The sum of their durations.
    pub db_time: Duration,
    /// The round trips that the program counted with [`RoundTripCall`](crate::RoundTripCall).
    pub round_trips: RoundTrips,
    /// The findings of the scope and its inner scopes.
    pub findings: Vec<Finding>,
    /// Number of statements that ran outside of every scope while this scope was open: those of its watch, or those of the
    /// whole process for a scope without a watch. Statements of spawned tasks and threads are among them.
    pub unscoped: u64,
    state: Arc<ScopeState>,
}

impl Report {
    pub(crate) fn new(state: Arc<ScopeState>, findings: Vec<Finding>) -> Self {
        Self {
            statements: state.statements(),
            db_time: state.db_time(),
            round_trips: state.round_trips.read(),
            findings,
            unscoped: state.unscoped(),
            state,
        }
    }

    /// Returns the shapes of the scope, most frequent first.
    pub fn shapes(&self) -> Vec<ShapeCalls> {
        self.state.shapes()
    }

    /// Asserts that the scope issued statements, at most `budget` of them, and has no findings. Intended for tests.
    ///
    /// A budget of 0 asserts that the scope issued none.
    ///
    /// # Panics
    /// Panics if the scope exceeds the budget, has findings, or issued no statement although the budget allows some: then
    /// the connection is not watched, or a task or thread lost the scope. The message lists the statements, including
    /// those outside of every scope.
    #[track_caller]
    pub fn assert_budget(&self, budget: u32) {
        assert!(
            self.statements > 0 || budget == 0,
            "no statement was recorded, but the budget is {budget}: set the instrumentation of the connection, or expect \
             none with a budget of 0{}",
            self.details()
        );
        let within = self.statements <= budget && self.findings.is_empty();
        assert!(within, "{} statements, at most {budget} allowed{}", self.statements, self.details());
    }

    /// Asserts that no statement ran outside of every scope while this scope was open. Intended for tests, and for scopes
    /// with a watch of their own: otherwise it also fails for statements of other tests.
    ///
    /// # Panics
    /// Panics if there were such statements. The message lists them, and names what spawned their task or thread.
    #[track_caller]
    pub fn assert_no_unscoped(&self) {
        assert!(self.unscoped == 0, "the scope lost statements{}", self.describe_unscoped());
    }

    fn describe_unscoped(&self) -> String {
        unscoped::describe(self.unscoped, &self.state.unscoped_statements())
    }

    fn details(&self) -> String {
        let findings = self.findings.iter().map(|finding| format!("\n  {finding}"));
        let shapes = self.shapes();
        let shapes = shapes.iter().map(|shape| format!("\n  {} × {}", shape.calls, head(&shape.sql, 200)));
        findings.chain(shapes).chain([self.describe_unscoped()]).collect()
    }
}

/// Runs a future in a scope, asserts its budget as [`Report::assert_budget`] does, and returns the output.
///
/// The scope needs no watch: it counts the statements of every connection that reports to any watch.
///
/// ```no_run
/// # async fn list_users() -> Vec<u32> { Vec::new() }
/// # async fn test() {
/// let users = querywatch::assert_budget!(2, async { list_users().await });
/// # }
/// ```
#[macro_export]
macro_rules! assert_budget {
    ($budget:expr, $future:expr $(,)?) => {{
        let (output, report) = $crate::Scope::unwatched().run($future).await;
        report.assert_budget($budget);
        output
    }};
}
