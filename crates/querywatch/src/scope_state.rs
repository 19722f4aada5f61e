//! The counters of a scope, and the findings that follow from them.

use std::backtrace::Backtrace;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::collector::{Collector, Settings};
use crate::events::{Finding, FindingKind, hex, unix_ms};
use crate::location;
use crate::registry::{IdMap, Shape};
use crate::round_trips::RoundTripCounters;
use crate::routes::{NO_ROUTE, RouteId};
use crate::unscoped::{ProcessReader, UnscopedLog, UnscopedStatement};

/// The maximum number of findings of inner scopes that a report repeats.
const MAX_INNER_FINDINGS: usize = 100;

/// The maximum number of shapes of a scope. Above it, the scope merges the half with the fewest statements.
const MAX_SHAPES: usize = 128;
/// The id and text of the entry that merges shapes.
const OTHER: (&str, &str) = ("other", "(further shapes)");

/// A budget, and where the program set it.
pub(crate) type Budget = (u32, &'static Location<'static>);

/// The calls of a shape in a scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ShapeCalls {
    /// The id of the shape.
    pub id: String,
    /// The shape.
    pub sql: String,
    /// Number of statements.
    pub calls: u32,
}

/// The counters of a scope.
#[derive(Debug)]
pub(crate) struct ScopeState {
    pub(crate) collector: Option<Arc<Collector>>,
    pub(crate) parent: Option<Arc<Self>>,
    route: AtomicU32,
    pub(crate) request_id: Option<String>,
    pub(crate) traceparent: Option<String>,
    statements: AtomicU32,
    nanos: AtomicU64,
    pub(crate) round_trips: RoundTripCounters,
    /// The sequential round trips of the parent when this scope started.
    outer_round_trips: u32,
    /// The number of statements outside of every scope when this scope started.
    unscoped_before: u64,
    /// Exists in a scope without a watch.
    reader: Option<ProcessReader>,
    details: Mutex<ScopeDetails>,
}

#[derive(Debug, Default)]
struct ScopeDetails {
    budget: Option<Budget>,
    usage: IdMap<ShapeUsage>,
    /// Statements of merged shapes.
    other_calls: u32,
    inner_findings: Vec<Finding>,
}

/// The statements of one shape in one scope.
#[derive(Debug)]
struct ShapeUsage {
    shape: Arc<Shape>,
    calls: u32,
    /// The calls that count as repetitions.
    repeats: u32,
    limit: u32,
    parameters: ParameterSet,
    first: Option<Box<Backtrace>>,
    last: Option<Box<Backtrace>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParameterSet {
    Empty,
    Same(u64),
    Distinct,
}

impl ShapeUsage {
    fn new(shape: &Arc<Shape>) -> Self {
        Self {
            shape: Arc::clone(shape),
            calls: 0,
            repeats: 0,
            limit: 0,
            parameters: ParameterSet::Empty,
            first: None,
            last: None,
        }
    }

    fn add_repeat(&mut self, parameters: Option<u64>, settings: &Settings) {
        self.repeats += 1;
        self.limit = settings.repeat_limit;
        self.parameters = match (self.parameters, parameters) {
            (ParameterSet::Empty, Some(new)) => ParameterSet::Same(new),
            (ParameterSet::Same(old), Some(new)) if old == new => ParameterSet::Same(old),
            _ => ParameterSet::Distinct,
        };
        if !settings.capture_locations {
            return;
        }
        if self.repeats == 1 {
            self.first = Some(Box::new(Backtrace::force_capture()));
        } else if self.repeats > self.limit {
            self.last = Some(Box::new(Backtrace::force_capture()));
        }
    }
}

impl ScopeDetails {
    /// Merges the half of the shapes with the fewest statements. A repetition in progress remains, because its statements
    /// are more frequent than those of most shapes.
    #[cold]
    fn merge_rare_shapes(&mut self) {
        let mut by_calls: Vec<(u32, u64)> = self.usage.iter().map(|(id, usage)| (usage.calls, *id)).collect();
        by_calls.sort_unstable();
        for (calls, id) in by_calls.into_iter().take(MAX_SHAPES / 2) {
            self.usage.remove(&id);
            self.other_calls = self.other_calls.saturating_add(calls);
        }
    }
}

impl ScopeState {
    pub(crate) fn new(collector: Option<Arc<Collector>>, route: RouteId) -> Self {
        Self {
            unscoped_before: 0,
            reader: None,
            collector,
            parent: None,
            route: AtomicU32::new(route),
            request_id: None,
            traceparent: None,
            statements: AtomicU32::new(0),
            nanos: AtomicU64::new(0),
            round_trips: RoundTripCounters::default(),
            outer_round_trips: 0,
            details: Mutex::default(),
        }
    }

    fn details(&self) -> MutexGuard<'_, ScopeDetails> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_budget(&self, budget: Budget) {
        self.details().budget = Some(budget);
    }

    pub(crate) fn set_route(&self, route: &str) {
        let route = self.collector.as_ref().map_or(NO_ROUTE, |collector| collector.routes.id(route));
        self.route.store(route, Ordering::Relaxed);
    }

    /// Returns the id of the route in this collector, or `NO_ROUTE` if the scope belongs to another one.
    pub(crate) fn route_in(&self, collector: &Arc<Collector>) -> RouteId {
        let same = self.collector.as_ref().is_some_and(|own| Arc::ptr_eq(own, collector));
        if same { AtomicU32::load(&self.route, Ordering::Relaxed) } else { NO_ROUTE }
    }

    pub(crate) fn route_name(&self) -> Option<String> {
        let route = AtomicU32::load(&self.route, Ordering::Relaxed);
        self.collector.as_ref().and_then(|collector| collector.routes.name(route))
    }

    /// Counts a statement.
    pub(crate) fn count(&self, shape: &Arc<Shape>) {
        self.count_with(shape, |_| {});
    }

    /// Counts a statement as a possible repetition. `parameters` is a hash of its values if they are known.
    pub(crate) fn count_repeat(&self, shape: &Arc<Shape>, parameters: Option<u64>, settings: &Settings) {
        self.count_with(shape, |usage| usage.add_repeat(parameters, settings));
    }

    fn count_with(&self, shape: &Arc<Shape>, update: impl FnOnce(&mut ShapeUsage)) {
        self.statements.fetch_add(1, Ordering::Relaxed);
        let mut details = self.details();
        if details.usage.len() >= MAX_SHAPES && !details.usage.contains_key(&shape.id) {
            details.merge_rare_shapes();
        }
        let usage = details.usage.entry(shape.id).or_insert_with(|| ShapeUsage::new(shape));
        usage.calls += 1;
        update(usage);
    }

    pub(crate) fn add_nanos(&self, nanos: u64) {
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    pub(crate) fn statements(&self) -> u32 {
        AtomicU32::load(&self.statements, Ordering::Relaxed)
    }

    pub(crate) fn db_time(&self) -> Duration {
        Duration::from_nanos(AtomicU64::load(&self.nanos, Ordering::Relaxed))
    }

    /// Starts the scope within another one.
    pub(crate) fn start(&mut self, parent: Option<Arc<Self>>) {
        self.outer_round_trips = parent.as_ref().map_or(0, |parent| parent.round_trips.read().sequential);
        self.parent = parent;
        self.reader = self.collector.is_none().then(ProcessReader::new);
        self.unscoped_before = self.unscoped_log().map_or(0, UnscopedLog::count);
    }

    /// Returns the statements outside of every scope; `None` before the scope has started, if it has no watch.
    fn unscoped_log(&self) -> Option<&UnscopedLog> {
        let watch = self.collector.as_ref().map(|collector| &collector.unscoped);
        watch.or_else(|| self.reader.as_ref().map(ProcessReader::log))
    }

    /// Returns the number of statements that ran outside of every scope since this scope started.
    pub(crate) fn unscoped(&self) -> u64 {
        self.unscoped_log().map_or(0, UnscopedLog::count).saturating_sub(self.unscoped_before)
    }

    /// Returns the statements that ran outside of every scope since this scope started, if they are captured.
    pub(crate) fn unscoped_statements(&self) -> Vec<UnscopedStatement> {
        self.unscoped_log().map_or_else(Vec::new, |log| log.since(self.unscoped_before))
    }

    /// Returns the shapes, most frequent first.
    pub(crate) fn shapes(&self) -> Vec<ShapeCalls> {
        let details = self.details();
        let calls = |usage: &ShapeUsage| ShapeCalls {
            id: hex(usage.shape.id),
            sql: usage.shape.sql.to_string(),
            calls: usage.calls,
        };
        let mut shapes: Vec<ShapeCalls> = details.usage.values().map(calls).collect();
        if details.other_calls > 0 {
            shapes.push(ShapeCalls { id: OTHER.0.to_owned(), sql: OTHER.1.to_owned(), calls: details.other_calls });
        }
        shapes.sort_by(|one, other| (other.calls, &one.sql).cmp(&(one.calls, &other.sql)));
        shapes
    }

    /// Evaluates the scope and reports its findings. Returns them after those of the inner scopes.
    pub(crate) fn close(&self) -> Vec<Finding> {
        let own = self.evaluate();
        if let Some(collector) = &self.collector {
            own.iter().for_each(|finding| collector.report_finding(finding.clone()));
        }
        let mut all = std::mem::take(&mut self.details().inner_findings);
        all.extend(own);
        all.truncate(MAX_INNER_FINDINGS);
        if let Some(parent) = &self.parent {
            parent.round_trips.add(self.outer_round_trips, self.round_trips.read());
            let mut details = parent.details();
            let room = MAX_INNER_FINDINGS.saturating_sub(details.inner_findings.len());
            details.inner_findings.extend(all.iter().take(room).cloned());
        }
        all
    }

    fn evaluate(&self) -> Vec<Finding> {
        let now = unix_ms();
        let blank = Finding {
            route: self.route_name(),
            request_id: self.request_id.clone(),
            first_seen_ms: now,
            last_seen_ms: now,
            ..Finding::new(FindingKind::NPlusOne)
        };
        let mut details = self.details();
        let mut findings = Vec::new();
        for usage in details.usage.values_mut().filter(|usage| usage.repeats > usage.limit) {
            findings.push(Finding {
                kind: match usage.parameters {
                    ParameterSet::Same(_) => FindingKind::RepeatedQuery,
                    ParameterSet::Empty | ParameterSet::Distinct => FindingKind::NPlusOne,
                },
                shape: Some(hex(usage.shape.id)),
                sql: Some(usage.shape.sql.to_string()),
                calls: usage.repeats,
                limit: usage.limit,
                first_call: usage.first.take().and_then(|trace| location::find(&trace)),
                last_call: usage.last.take().and_then(|trace| location::find(&trace)),
                ..blank.clone()
            });
        }
        if let Some((limit, set_at)) = details.budget.filter(|(limit, _)| self.statements() > *limit) {
            findings.push(Finding {
                kind: FindingKind::BudgetExceeded,
                calls: self.statements(),
                limit,
                first_call: Some(set_at.to_string()),
                ..blank
            });
        }
        findings
    }
}
