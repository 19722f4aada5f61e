//! What a watch tells: slow statements and findings.

use std::time::{Duration, SystemTime};

use serde::Serialize;

/// Hears of slow statements and findings as they come: for metrics, a live view, or traces.
///
/// It is called on the thread that ran the statement, while its connection is in use: it must be quick, and must not query.
pub trait Sink: Send + Sync + 'static {
    /// A statement took longer than the threshold.
    fn slow(&self, statement: &SlowStatement) {
        let _ = statement;
    }

    /// Whether [`statement`](Self::statement) is called; asked once. Default: `false`, as it is for every statement.
    fn wants_statements(&self) -> bool {
        false
    }

    /// A statement ended.
    fn statement(&self, statement: &Statement<'_>) {
        let _ = statement;
    }

    /// A scope ended with a finding.
    fn finding(&self, finding: &Finding) {
        let _ = finding;
    }
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Well.
    Finished,
    /// The database refused it.
    Failed,
    /// The caller went away first, as with a time-out. Seen within [`call`](crate::call) alone.
    Cancelled,
}

/// A statement that just ended.
#[derive(Debug, Clone, Copy)]
pub struct Statement<'a> {
    /// Its shape.
    pub sql: &'a str,
    /// What it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// A statement that took longer than the threshold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlowStatement {
    /// When it ended, in milliseconds since 1970.
    pub at_ms: u64,
    /// Its shape's id.
    pub shape: String,
    /// The first 200 characters of its shape.
    pub sql: String,
    /// What it took, in microseconds.
    pub took_us: u64,
    /// The threshold, in microseconds.
    pub threshold_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The scope's route.
    pub route: Option<String>,
    /// The scope's request id.
    pub request_id: Option<String>,
}

/// What is wrong with a scope's statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The same statement again and again with other parameters, or with parameters that are not known.
    NPlusOne,
    /// The same statement again and again with the same parameters: its answer could have been kept.
    RepeatedQuery,
    /// More statements than the scope may issue.
    BudgetExceeded,
}

/// Something wrong with a scope's statements. Those of the same kind, route and shape are one finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// The scope's route.
    pub route: Option<String>,
    /// The newest scope's request id.
    pub request_id: Option<String>,
    /// The shape's id; `None` for a budget.
    pub shape: Option<String>,
    /// The shape; `None` for a budget.
    pub sql: Option<String>,
    /// The statements that the newest scope issued: of the shape, or in all.
    pub calls: u32,
    /// How many it might have issued.
    pub limit: u32,
    /// Where the first of them was issued; for a budget, where it was set.
    pub first_call: Option<String>,
    /// Where the last of them was issued.
    pub last_call: Option<String>,
    /// Scopes that had it.
    pub scopes: u64,
    /// The first of those, in milliseconds since 1970.
    pub first_seen_ms: u64,
    /// The last of those, in milliseconds since 1970.
    pub last_seen_ms: u64,
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
        for (what, value) in [(" in ", &self.route), (": ", &self.sql), (" at ", &self.first_call)] {
            if let Some(value) = value {
                write!(f, "{what}{value}")?;
            }
        }
        Ok(())
    }
}

/// The first characters of a text.
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
