//! The watch: what all connections report to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::events::{Finding, FindingKind, Outcome, Sink, SlowStatement, Statement, head, hex, unix_ms};
use crate::findings::Findings;
use crate::probe::Probe;
use crate::registry::{Ended, Recorded, Registry, Shape};
use crate::routes::Routes;
use crate::slow::SlowRing;
use crate::stats::{Now, SLOTS};
use crate::{scope, shape};

/// Characters of a slow statement's shape that are told.
const SLOW_SQL: usize = 200;
const CANCELLED: &str = "(cancelled before its end)";

/// Settings of a watch; [`WatchBuilder::build`] makes it.
#[must_use = "no watch was made"]
pub struct WatchBuilder {
    settings: Settings,
    max_shapes: usize,
    window: Duration,
    slow_kept: usize,
    allowed: Vec<String>,
    sinks: Vec<Box<dyn Sink>>,
}

/// What is asked for at every statement.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) slow_threshold: Duration,
    pub(crate) repeat_limit: u32,
    pub(crate) compare_parameters: bool,
    pub(crate) name_cancelled: bool,
    pub(crate) locations: bool,
}

impl WatchBuilder {
    /// A statement that takes as long as this, or longer, is slow. Default: 100 ms.
    pub const fn slow_threshold(mut self, threshold: Duration) -> Self {
        self.settings.slow_threshold = threshold;
        self
    }

    /// How many slow statements are kept to be read out. Default: 200.
    pub const fn slow_kept(mut self, statements: usize) -> Self {
        self.slow_kept = statements;
        self
    }

    /// A scope that issues one shape more often than this has a finding. Default: 5.
    pub const fn repeat_limit(mut self, times: u32) -> Self {
        self.settings.repeat_limit = times;
        self
    }

    /// Shapes that contain this text may be repeated without a finding. Default: none.
    pub fn allow_repeats_of(mut self, part_of_shape: impl Into<String>) -> Self {
        self.allowed.push(part_of_shape.into());
        self
    }

    /// Compares the values of repeated statements, by a hash, to tell [`FindingKind::RepeatedQuery`] from
    /// [`FindingKind::NPlusOne`]. Default: `false`, as the values have to be formatted.
    ///
    /// It needs values in the event of a statement's end. SQLite's has them. PostgreSQL's has not: there only statements
    /// without parameters are told apart, which they are without this.
    pub const fn compare_parameters(mut self, compare: bool) -> Self {
        self.settings.compare_parameters = compare;
        self
    }

    /// Whether a statement that is cancelled within a [`call`](crate::call) has its shape. Default: `false`: on PostgreSQL
    /// diesel builds a statement's text a second time when it is asked at its beginning, which takes about 0.6 µs for each.
    pub const fn name_cancelled(mut self, name: bool) -> Self {
        self.settings.name_cancelled = name;
        self
    }

    /// Whether findings say which lines issued the first and the last of the statements. Default: in debug builds, as it takes
    /// a walk over the stack (microseconds) for the first statement of each shape in each scope. The lines need debug information.
    pub const fn locations(mut self, locations: bool) -> Self {
        self.settings.locations = locations;
        self
    }

    /// How many shapes are kept, at least 1. When there are more, the coldest are counted together. Default: 500.
    pub const fn max_shapes(mut self, shapes: usize) -> Self {
        self.max_shapes = shapes;
        self
    }

    /// The time of the sliding window, made of 30 slots. Default: 5 minutes.
    pub const fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Tells slow statements and findings, or all statements, to someone, apart from the log. May be called several times.
    pub fn sink(mut self, sink: impl Sink) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }

    /// Makes the watch.
    pub fn build(mut self) -> Watch {
        // Time-outs are no N+1.
        self.allowed.push(CANCELLED.to_owned());
        let slot_length = (self.window / u32::try_from(SLOTS).unwrap_or(1)).max(Duration::from_millis(1));
        Watch(Arc::new(Inner {
            tells_all: self.sinks.iter().any(|sink| sink.wants_statements()),
            settings: self.settings,
            sinks: self.sinks,
            clock: Clock { began: Instant::now(), began_ms: unix_ms(), slot_length },
            registry: Registry::new(self.max_shapes, self.allowed),
            routes: Routes::default(),
            slow: SlowRing::new(self.slow_kept),
            slow_count: AtomicU64::new(0),
            findings: Findings::default(),
        }))
    }
}

/// Sees every statement of the connections that have its [`instrumentation`](Self::instrumentation). Cheap to clone.
#[derive(Debug, Clone)]
pub struct Watch(pub(crate) Arc<Inner>);

impl Watch {
    /// Begins with the defaults.
    pub const fn builder() -> WatchBuilder {
        WatchBuilder {
            settings: Settings {
                slow_threshold: Duration::from_millis(100),
                repeat_limit: 5,
                compare_parameters: false,
                name_cancelled: false,
                locations: cfg!(debug_assertions),
            },
            max_shapes: 500,
            window: Duration::from_mins(5),
            slow_kept: 200,
            allowed: Vec::new(),
            sinks: Vec::new(),
        }
    }

    /// Returns the duration from which a statement is slow.
    pub fn slow_threshold(&self) -> Duration {
        self.0.settings.slow_threshold
    }

    /// Returns how often a scope may issue one shape without a finding.
    pub fn repeat_limit(&self) -> u32 {
        self.0.settings.repeat_limit
    }

    /// Returns the duration of the sliding window.
    pub fn window(&self) -> Duration {
        self.0.clock.slot_length * u32::try_from(SLOTS).unwrap_or(1)
    }

    /// For one connection's `set_instrumentation`.
    pub fn instrumentation(&self) -> Probe {
        Probe::new(Arc::clone(&self.0))
    }
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    /// Whether a sink wants to hear of every statement.
    tells_all: bool,
    sinks: Vec<Box<dyn Sink>>,
    clock: Clock,
    pub(crate) registry: Registry,
    pub(crate) routes: Routes,
    pub(crate) slow: SlowRing,
    pub(crate) slow_count: AtomicU64,
    pub(crate) findings: Findings,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Clock {
    began: Instant,
    began_ms: u64,
    slot_length: Duration,
}

impl Clock {
    fn slot(&self, at: Instant) -> u64 {
        let elapsed = at.saturating_duration_since(self.began).as_nanos();
        // Both fit: 64 bits of nanoseconds are 584 years.
        u64::try_from(elapsed).unwrap_or(u64::MAX) / u64::try_from(self.slot_length.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Inner {
    pub(crate) fn now(&self) -> Now {
        let now = Instant::now();
        Now {
            slot: self.clock.slot(now),
            slot_length: self.clock.slot_length,
            elapsed: now.saturating_duration_since(self.clock.began),
            began: Duration::from_millis(self.clock.began_ms),
        }
    }

    /// The shape with this text.
    pub(crate) fn shape(&self, sql: &str) -> Arc<Shape> {
        self.registry.get(shape::id(sql), sql, self.now())
    }

    /// The shape of statements that were cancelled and have no other.
    pub(crate) fn cancelled_shape(&self) -> Arc<Shape> {
        self.shape(CANCELLED)
    }

    /// Records a statement's time.
    pub(crate) fn ended(self: &Arc<Self>, shape: &Arc<Shape>, end: Instant, took: Duration, outcome: Outcome) {
        let ended = Ended {
            slot: self.clock.slot(end),
            end,
            took,
            failed: outcome != Outcome::Finished,
            slow: took >= self.settings.slow_threshold,
            route: scope::took(self, took),
        };
        let mut recorded = shape.record(ended);
        while recorded == Recorded::Evicted {
            // Someone else made room between the look and the record.
            recorded = self.registry.get(shape.id, &shape.sql, self.now()).record(ended);
        }
        if self.tells_all {
            let statement = Statement { sql: &shape.sql, took, outcome };
            self.sinks.iter().filter(|sink| sink.wants_statements()).for_each(|sink| sink.statement(&statement));
        }
        if let Recorded::Slow(log) = recorded {
            self.tell_slow(shape, ended, outcome, log);
        }
    }

    #[cold]
    fn tell_slow(&self, shape: &Shape, ended: Ended, outcome: Outcome, log: Option<u32>) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let statement = SlowStatement {
            at_ms: unix_ms(),
            shape: hex(shape.id),
            sql: head(&shape.sql, SLOW_SQL).to_owned(),
            took_us: us(ended.took),
            threshold_us: us(self.settings.slow_threshold),
            outcome,
            route: self.routes.name(ended.route),
            request_id: scope::request_id(),
        };
        self.slow_count.fetch_add(1, Ordering::Relaxed);
        if let Some(suppressed) = log {
            tracing::warn!(
                target: "querywatch",
                duration_ms = statement.took_us / 1_000,
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
            sink.slow(&statement);
        }
        self.slow.push(statement);
    }

    /// Keeps a scope's finding, and tells it.
    pub(crate) fn found(&self, finding: Finding) {
        let (finding, log) = self.findings.add(finding, Instant::now());
        if let Some(suppressed) = log {
            let (kind, message) = match finding.kind {
                FindingKind::NPlusOne => ("n_plus_one", "N+1: the same statement again and again"),
                FindingKind::RepeatedQuery => {
                    ("repeated_query", "the same statement with the same parameters again and again")
                }
                FindingKind::BudgetExceeded => ("budget_exceeded", "more statements than the budget"),
            };
            tracing::warn!(
                target: "querywatch",
                kind,
                calls = finding.calls,
                limit = finding.limit,
                sql = finding.sql.as_deref().map(|sql| head(sql, SLOW_SQL)),
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
            sink.finding(&finding);
        }
    }
}
