//! What a scope says when it ends, and how a test judges it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::events::{Finding, head};
use crate::scope::State;

/// What a scope issued.
#[derive(Debug)]
pub struct Report {
    /// Statements, also those of scopes within it; `BEGIN`, `COMMIT` and `ROLLBACK` are round trips and count.
    pub statements: u32,
    /// The sum of their times.
    pub db_time: Duration,
    /// What was found in it and in the scopes within it.
    pub findings: Vec<Finding>,
    scope: Arc<State>,
}

/// How often a scope issued a shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShapeCalls {
    /// The shape's id.
    pub id: String,
    /// The shape.
    pub sql: String,
    /// How often.
    pub calls: u32,
}

impl Report {
    pub(crate) fn new(scope: Arc<State>, findings: Vec<Finding>) -> Self {
        Self { statements: scope.statements(), db_time: scope.time(), findings, scope }
    }

    /// What it issued, the most frequent first.
    pub fn shapes(&self) -> Vec<ShapeCalls> {
        self.scope.shapes()
    }

    /// For tests.
    ///
    /// # Panics
    /// When more statements were issued than `budget`, or there are findings; the message lists the statements.
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

/// Runs a future, and fails the test when it issues more statements than the budget or has a finding. Gives what the
/// future gives.
///
/// It needs no watch of its own: every statement counts whose connection has the instrumentation of any.
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
