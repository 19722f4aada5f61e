//! Collects the statements, slow statements and findings of one watch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::events::{Finding, FindingKind, Outcome, Sink, SlowStatement, Statement, head, hex, unix_ms};
use crate::finding_log::FindingLog;
use crate::registry::{Completion, RecordResult, Registry, Shape};
use crate::routes::{RouteId, RouteTable};
use crate::shape::{self, Dialect};
use crate::slow_log::SlowLog;
use crate::stats::{ReadTime, SLOTS};
use crate::text_cache::{CachedShape, TextCache};
use crate::unscoped::UnscopedLog;

/// The maximum length of a logged shape, in characters.
const MAX_LOGGED_CHARS: usize = 200;
/// The shape of cancelled statements whose text is unknown.
const CANCELLED: &str = "(cancelled before its end)";

/// Settings that apply to each statement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) slow_threshold: Duration,
    pub(crate) repeat_limit: u32,
    pub(crate) compare_parameters: bool,
    pub(crate) capture_cancelled_sql: bool,
    pub(crate) capture_locations: bool,
    pub(crate) dialect: Dialect,
}

/// Capacities of a collector.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Capacities {
    pub(crate) shapes: usize,
    pub(crate) slow_statements: usize,
    pub(crate) window: Duration,
}

/// The shared state of a watch.
pub(crate) struct Collector {
    pub(crate) settings: Settings,
    /// Set if a sink receives each statement.
    forwards_statements: bool,
    sinks: Vec<Box<dyn Sink>>,
    clock: Clock,
    pub(crate) registry: Registry,
    pub(crate) routes: RouteTable,
    pub(crate) slow_log: SlowLog,
    pub(crate) slow_count: AtomicU64,
    pub(crate) finding_log: FindingLog,
    pub(crate) unscoped: UnscopedLog,
    texts: TextCache,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The clock of the sliding window.
#[derive(Debug)]
struct Clock {
    started: Instant,
    started_ms: u64,
    slot_length: Duration,
}

impl Clock {
    fn slot(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.started).as_nanos();
        // 64 bits hold 584 years of nanoseconds.
        u64::try_from(elapsed).unwrap_or(u64::MAX) / u64::try_from(self.slot_length.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Collector {
    pub(crate) fn new(
        settings: Settings,
        capacities: Capacities,
        mut repeatable: Vec<String>,
        sinks: Vec<Box<dyn Sink>>,
    ) -> Self {
        // Repeated time-outs are no N+1.
        repeatable.push(CANCELLED.to_owned());
        let slots = u32::try_from(SLOTS).unwrap_or(1);
        let slot_length = (capacities.window / slots).max(Duration::from_millis(1));
        Self {
            forwards_statements: sinks.iter().any(|sink| sink.wants_statements()),
            settings,
            sinks,
            clock: Clock { started: Instant::now(), started_ms: unix_ms(), slot_length },
            registry: Registry::new(capacities.shapes, repeatable),
            routes: RouteTable::default(),
            slow_log: SlowLog::new(capacities.slow_statements),
            slow_count: AtomicU64::new(0),
            finding_log: FindingLog::default(),
            unscoped: UnscopedLog::new(),
            texts: TextCache::default(),
        }
    }

    pub(crate) fn now(&self) -> ReadTime {
        let now = Instant::now();
        ReadTime {
            slot: self.clock.slot(now),
            slot_length: self.clock.slot_length,
            elapsed: now.saturating_duration_since(self.clock.started),
            started: Duration::from_millis(self.clock.started_ms),
        }
    }

    /// Returns the entry of a shape, which is created if it is new.
    pub(crate) fn shape(&self, sql: &str) -> Arc<Shape> {
        self.registry.get_or_insert(shape::id(sql), sql, self.now())
    }

    /// Returns the hash of a text and its shape.
    pub(crate) fn shape_of(&self, sql: &str) -> (u64, CachedShape) {
        self.texts.get_or_insert(sql, || self.compute_shape(sql))
    }

    /// Computes the shape of a text.
    pub(crate) fn compute_shape(&self, sql: &str) -> CachedShape {
        let folded = shape::fold(sql, self.settings.dialect);
        CachedShape { shape: self.shape(&folded.shape), has_parameters: folded.has_parameters }
    }

    /// Returns the shape of cancelled statements whose text is unknown.
    #[cfg(feature = "diesel")]
    pub(crate) fn cancelled_shape(&self) -> Arc<Shape> {
        self.shape(CANCELLED)
    }

    /// Records a statement that ended. Calls `request_id` only for a slow statement.
    pub(crate) fn record(
        &self,
        shape: &Arc<Shape>,
        (end, duration, outcome): (Instant, Duration, Outcome),
        rows: Option<u64>,
        route: RouteId,
        request_id: impl FnOnce() -> Option<String>,
    ) {
        let completion = Completion {
            slot: self.clock.slot(end),
            end,
            duration,
            is_error: matches!(outcome, Outcome::Failed | Outcome::Cancelled),
            is_slow: duration >= self.settings.slow_threshold,
            rows,
            route,
        };
        let mut result = shape.record(completion);
        while result == RecordResult::Evicted {
            // Another thread evicted the shape between the lookup and the record.
            result = self.registry.get_or_insert(shape.id, &shape.sql, self.now()).record(completion);
        }
        if self.forwards_statements {
            let statement = Statement { sql: &shape.sql, duration, outcome, rows };
            self.sinks.iter().filter(|sink| sink.wants_statements()).for_each(|sink| sink.on_statement(&statement));
        }
        if let RecordResult::Slow(suppressed) = result {
            self.report_slow(shape, completion, outcome, request_id(), suppressed);
        }
    }

    #[cold]
    fn report_slow(
        &self,
        shape: &Shape,
        completion: Completion,
        outcome: Outcome,
        request_id: Option<String>,
        suppressed: Option<u32>,
    ) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let statement = SlowStatement {
            at_ms: unix_ms(),
            shape: hex(shape.id),
            sql: head(&shape.sql, MAX_LOGGED_CHARS).to_owned(),
            duration_us: us(completion.duration),
            threshold_us: us(self.settings.slow_threshold),
            outcome,
            route: self.routes.name(completion.route),
            request_id,
        };
        self.slow_count.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = suppressed {
            tracing::warn!(
                target: "querywatch",
                duration_ms = statement.duration_us / 1_000,
                threshold_ms = statement.threshold_us / 1_000,
                sql = statement.sql,
                shape = statement.shape,
                outcome = ?statement.outcome,
                route = statement.route,
                request_id = statement.request_id,
                suppressed,
                "slow statement"
            );
        }
        for sink in &self.sinks {
            sink.on_slow_statement(&statement);
        }
        self.slow_log.push(statement);
    }

    /// Stores, logs and forwards the finding of a scope.
    pub(crate) fn report_finding(&self, finding: Finding) {
        let (finding, suppressed) = self.finding_log.add(finding, Instant::now());
        if let Some(suppressed) = suppressed {
            let (kind, message) = match finding.kind {
                FindingKind::NPlusOne => ("n_plus_one", "N+1: one statement repeated for each row"),
                FindingKind::RepeatedQuery => ("repeated_query", "one statement repeated with the same parameters"),
                FindingKind::BudgetExceeded => ("budget_exceeded", "statement budget exceeded"),
            };
            tracing::warn!(
                target: "querywatch",
                kind,
                calls = finding.calls,
                limit = finding.limit,
                sql = finding.sql.as_deref().map(|sql| head(sql, MAX_LOGGED_CHARS)),
                shape = finding.shape,
                route = finding.route,
                request_id = finding.request_id,
                first_call = finding.first_call,
                last_call = finding.last_call,
                suppressed,
                "{message}"
            );
        }
        for sink in &self.sinks {
            sink.on_finding(&finding);
        }
    }
}
