//! The report of a scope.

use std::sync::Arc;
use std::time::Duration;

use crate::events::{Finding, head};
use crate::scope_state::{ScopeState, ShapeCalls};

/// The statements and findings of a scope.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// Number of statements, including those of inner scopes. `BEGIN`, `COMMIT` and `ROLLBACK` are round trips and count.
    pub statements: u32,
    /// The sum of their durations.
    pub db_time: Duration,
    /// The findings of the scope and its inner scopes.
    pub findings: Vec<Finding>,
    state: Arc<ScopeState>,
}

impl Report {
    pub(crate) fn new(state: Arc<ScopeState>, findings: Vec<Finding>) -> Self {
        Self { statements: state.statements(), db_time: state.db_time(), findings, state }
    }

    /// Returns the shapes of the scope, most frequent first.
    pub fn shapes(&self) -> Vec<ShapeCalls> {
        self.state.shapes()
    }

    /// Asserts that the scope issued at most `budget` statements and has no findings. Intended for tests.
    ///
    /// # Panics
    /// Panics if the scope exceeds the budget or has findings. The message lists the statements.
    #[track_caller]
    pub fn assert_budget(&self, budget: u32) {
        let within = self.statements <= budget && self.findings.is_empty();
        assert!(within, "{} statements, at most {budget} allowed{}", self.statements, self.details());
    }

    fn details(&self) -> String {
        let findings = self.findings.iter().map(|finding| format!("\n  {finding}"));
        let shapes = self.shapes();
        let shapes = shapes.iter().map(|shape| format!("\n  {} × {}", shape.calls, head(&shape.sql, 200)));
        findings.chain(shapes).collect()
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
