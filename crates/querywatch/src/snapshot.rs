//! Snapshots of a watch, for dashboards and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::events::{Finding, SlowStatement, hex};
use crate::registry::{RegistryTotals, Shape};
use crate::stats::{MergedStats, Point, ReadTime, SLOTS, Stats};
use crate::watch::Watch;

/// The id and text of the entry that merges the evicted shapes.
const OTHER: (&str, &str) = ("other", "(evicted shapes)");

/// A shape and its statistics.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ShapeSnapshot {
    /// The id, which is the same in every process; `other` for the merged evicted shapes.
    pub id: String,
    /// The statement without its values, truncated to 4 kB.
    pub sql: String,
    /// Set if the statement controls a transaction, such as `BEGIN` or `COMMIT`.
    pub transaction_control: bool,
    /// The statistics since the watch started.
    pub since_start: Stats,
    /// The statistics of the sliding window.
    pub window: Stats,
    /// Number of slow statements since the watch started.
    pub slow: u64,
    /// The routes that issued the shape, most frequent first; at most 16.
    pub routes: Vec<RouteCalls>,
}

/// A shape and its time series.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ShapeDetail {
    /// The shape.
    #[serde(flatten)]
    pub shape: ShapeSnapshot,
    /// The slots of the window, including empty ones, oldest first.
    pub series: Vec<Point>,
}

/// The number of statements of a shape on a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RouteCalls {
    /// The route.
    pub route: String,
    /// Number of statements.
    pub calls: u64,
}

/// The statistics of all shapes together.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// The statistics since the watch started.
    pub since_start: Stats,
    /// The statistics of the sliding window.
    pub window: Stats,
    /// The slots of the window, including empty ones, oldest first.
    pub series: Vec<Point>,
    /// Number of slow statements.
    pub slow: u64,
    /// Number of stored shapes.
    pub shapes: usize,
    /// Number of evicted shapes, whose statistics are merged.
    pub folded_shapes: u64,
    /// Number of findings of all scopes, before merging.
    pub findings: u64,
    /// Number of statements outside of every scope.
    pub unscoped: u64,
}

impl Watch {
    /// Returns all shapes, sorted by their total time in the window, longest first.
    pub fn shapes(&self) -> Vec<ShapeSnapshot> {
        let now = self.0.now();
        let mut all: Vec<ShapeSnapshot> =
            self.0.registry.all().iter().map(|shape| self.snapshot(shape, now).0).collect();
        all.extend(self.other(now).map(|(shape, _)| shape));
        all.sort_by_key(|shape| std::cmp::Reverse((shape.window.total_us, shape.since_start.total_us)));
        all
    }

    /// Returns the shape with this id and its time series.
    pub fn shape(&self, id: &str) -> Option<ShapeDetail> {
        let now = self.0.now();
        let (shape, merged) = if id == OTHER.0 {
            self.other(now)?
        } else {
            self.snapshot(self.0.registry.find(u64::from_str_radix(id, 16).ok()?).as_deref()?, now)
        };
        Some(ShapeDetail { shape, series: merged.series(now) })
    }

    /// Returns the stored slow statements, newest first.
    pub fn slow_statements(&self) -> Vec<SlowStatement> {
        self.0.slow_log.all()
    }

    /// Returns statements that ran outside of every scope; at most 50 distinct ones, and only if
    /// [`capture_locations`](crate::WatchBuilder::capture_locations) is set. [`Totals::unscoped`] counts all.
    pub fn unscoped_statements(&self) -> Vec<crate::UnscopedStatement> {
        self.0.unscoped.since(0)
    }

    /// Returns the findings, newest first; at most 200.
    pub fn findings(&self) -> Vec<Finding> {
        self.0.finding_log.all()
    }

    /// Returns the duration from which a statement is slow.
    pub fn slow_threshold(&self) -> Duration {
        self.0.settings.slow_threshold
    }

    /// Returns the number of statements of one shape above which a scope has a finding.
    pub fn repeat_limit(&self) -> u32 {
        self.0.settings.repeat_limit
    }

    /// Returns the duration of the sliding window.
    pub fn window(&self) -> Duration {
        self.0.now().slot_length * u32::try_from(SLOTS).unwrap_or(1)
    }

    /// Returns the statistics of all shapes together. Merging the histograms of 500 shapes takes milliseconds.
    pub fn totals(&self) -> Totals {
        let now = self.0.now();
        let RegistryTotals { merged, shapes, evicted } = self.0.registry.totals(now);
        Totals {
            since_start: merged.since_start(now),
            window: merged.window(now),
            series: merged.series(now),
            slow: AtomicU64::load(&self.0.slow_count, Ordering::Relaxed),
            shapes,
            folded_shapes: evicted,
            findings: self.0.finding_log.count(),
            unscoped: self.0.unscoped.count(),
        }
    }

    fn snapshot(&self, shape: &Shape, now: ReadTime) -> (ShapeSnapshot, MergedStats) {
        let mut merged = MergedStats::default();
        shape.add_to(&mut merged, now);
        let (slow, routes) = shape.counts();
        let mut routes: Vec<RouteCalls> = routes
            .into_iter()
            .filter_map(|(route, calls)| Some(RouteCalls { route: self.0.routes.name(route)?, calls }))
            .collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.calls));
        let snapshot = ShapeSnapshot {
            id: hex(shape.id),
            sql: shape.sql.to_string(),
            transaction_control: shape.is_transaction_control,
            since_start: merged.since_start(now),
            window: merged.window(now),
            slow,
            routes,
        };
        (snapshot, merged)
    }

    fn other(&self, now: ReadTime) -> Option<(ShapeSnapshot, MergedStats)> {
        let evicted = self.0.registry.evicted();
        if evicted.shapes == 0 {
            return None;
        }
        let mut merged = MergedStats::default();
        merged.add_merged(&evicted.merged, now);
        let snapshot = ShapeSnapshot {
            id: OTHER.0.to_owned(),
            sql: OTHER.1.to_owned(),
            transaction_control: false,
            since_start: merged.since_start(now),
            window: merged.window(now),
            slow: evicted.slow,
            routes: Vec::new(),
        };
        Some((snapshot, merged))
    }
}
