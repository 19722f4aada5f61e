//! Events of a watch: statements, slow statements and findings.

use std::time::{Duration, SystemTime};

use serde::Serialize;

/// Receives slow statements and findings, for example to update metrics or to export traces.
///
/// The thread that ran the statement calls it while the connection is in use: implementations must be quick and must not
/// query the database.
pub trait Sink: Send + Sync + 'static {
    /// Receives a statement that reached the threshold.
    fn on_slow_statement(&self, statement: &SlowStatement) {
        let _ = statement;
    }

    /// Returns whether the watch calls [`on_statement`](Self::on_statement). The watch reads it once. Default: `false`.
    fn wants_statements(&self) -> bool {
        false
    }

    /// Receives each statement that ended, if [`wants_statements`](Self::wants_statements) returns `true`.
    fn on_statement(&self, statement: &Statement<'_>) {
        let _ = statement;
    }

    /// Receives each finding of a scope that ended.
    fn on_finding(&self, finding: &Finding) {
        let _ = finding;
    }
}

/// The outcome of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The statement succeeded.
    Finished,
    /// The database rejected the statement.
    Failed,
    /// The caller dropped the statement before its end, as with a time-out.
    Cancelled,
    /// The driver does not report whether the statement succeeded. Not counted as an error.
    Unknown,
}

/// A statement that ended.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Statement<'a> {
    /// The shape.
    pub sql: &'a str,
    /// The duration.
    pub duration: Duration,
    /// The outcome of the statement.
    pub outcome: Outcome,
    /// Number of returned or changed rows, if the driver reports it.
    pub rows: Option<u64>,
}

/// A statement that reached the threshold of slow statements.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlowStatement {
    /// The end of the statement, in milliseconds since 1970.
    pub at_ms: u64,
    /// The id of the shape.
    pub shape: String,
    /// The first 200 characters of the shape.
    pub sql: String,
    /// The duration, in microseconds. Serialized as `took_us`.
    #[serde(rename = "took_us")]
    pub duration_us: u64,
    /// The threshold, in microseconds.
    pub threshold_us: u64,
    /// The outcome of the statement.
    pub outcome: Outcome,
    /// The route of the scope.
    pub route: Option<String>,
    /// The request id of the scope.
    pub request_id: Option<String>,
}

/// A problem with the statements of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// The scope repeated one statement with different or unknown parameters.
    NPlusOne,
    /// The scope repeated one statement with the same parameters, so it could reuse the result.
    RepeatedQuery,
    /// The scope issued more statements than its budget.
    BudgetExceeded,
}

/// A finding. A watch merges findings of the same kind, route and shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The kind of problem.
    pub kind: FindingKind,
    /// The route of the scope.
    pub route: Option<String>,
    /// The request id of the newest scope.
    pub request_id: Option<String>,
    /// The id of the shape; `None` for a budget.
    pub shape: Option<String>,
    /// The shape; `None` for a budget.
    pub sql: Option<String>,
    /// Statements of the newest scope: those of the shape, or all of them for a budget.
    pub calls: u32,
    /// The maximum number of statements that the scope may issue.
    pub limit: u32,
    /// The source line of the first statement; for a budget, the line that set it.
    pub first_call: Option<String>,
    /// The source line of the last statement.
    pub last_call: Option<String>,
    /// Number of scopes with this finding.
    pub scopes: u64,
    /// The first occurrence, in milliseconds since 1970.
    pub first_seen_ms: u64,
    /// The last occurrence, in milliseconds since 1970.
    pub last_seen_ms: u64,
}

impl Finding {
    /// Creates a finding of one scope, without route and statements. Intended for tests of dashboards.
    pub const fn new(kind: FindingKind) -> Self {
        Self {
            kind,
            route: None,
            request_id: None,
            shape: None,
            sql: None,
            calls: 0,
            limit: 0,
            first_call: None,
            last_call: None,
            scopes: 1,
            first_seen_ms: 0,
            last_seen_ms: 0,
        }
    }
}
impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { calls, limit, .. } = self;
        match self.kind {
            FindingKind::NPlusOne => write!(f, "N+1: {calls} times")?,
            FindingKind::RepeatedQuery => write!(f, "repeated query: {calls} times with the same parameters")?,
            FindingKind::BudgetExceeded => write!(f, "budget exceeded: {calls} statements")?,
        }
        write!(f, ", at most {limit} allowed")?;
        for (separator, value) in [(" in ", &self.route), (": ", &self.sql), (" at ", &self.first_call)] {
            if let Some(value) = value {
                write!(f, "{separator}{value}")?;
            }
        }
        Ok(())
    }
}

/// Returns the first characters of a text.
pub(crate) fn head(text: &str, characters: usize) -> &str {
    text.char_indices().nth(characters).and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn hex(id: u64) -> String {
    format!("{id:016x}")
}
