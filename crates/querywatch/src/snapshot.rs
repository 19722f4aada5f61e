//! What a watch knows, for dashboards and metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::events::{Finding, SlowStatement, hex};
use crate::registry::{Merged, Shape};
use crate::stats::{Merge, Now, Point, Stats};
use crate::watch::Watch;

/// The id and text of the shapes that are counted together.
const OTHER: (&str, &str) = ("other", "(shapes that are no longer kept)");

/// What is known of a shape.
///
/// How many rows a statement returned or changed is not: diesel's events don't say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeSnapshot {
    /// The same in every process; `other` for the shapes that are counted together.
    pub id: String,
    /// The statement without its values; of a longer one the first 4 kB.
    pub sql: String,
    /// Whether it is `BEGIN`, `COMMIT` or one of their like.
    pub transaction_control: bool,
    /// All since the watch began.
    pub since_start: Stats,
    /// Those of the sliding window.
    pub window: Stats,
    /// How many were slow, since the watch began.
    pub slow: u64,
    /// The routes that issued it, at most 16, the most frequent first.
    pub routes: Vec<RouteCalls>,
}

/// What is known of a shape, with its recent past.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapeDetail {
    /// The shape.
    #[serde(flatten)]
    pub shape: ShapeSnapshot,
    /// The window's slots, the oldest first, also the empty ones.
    pub series: Vec<Point>,
}

/// How often a route issued a shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteCalls {
    /// The route.
    pub route: String,
    /// How often.
    pub calls: u64,
}

/// All shapes together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Totals {
    /// All since the watch began.
    pub since_start: Stats,
    /// Those of the sliding window.
    pub window: Stats,
    /// The window's slots, the oldest first, also the empty ones.
    pub series: Vec<Point>,
    /// Statements that were slow.
    pub slow: u64,
    /// Shapes that are kept.
    pub shapes: usize,
    /// Shapes that were counted together with others for want of room.
    pub folded_shapes: u64,
    /// Findings of all scopes, those alike included.
    pub findings: u64,
}

impl Watch {
    /// All shapes, those first that took the most time in the window.
    pub fn shapes(&self) -> Vec<ShapeSnapshot> {
        let now = self.0.now();
        let mut all: Vec<ShapeSnapshot> = self.0.registry.all().iter().map(|shape| self.read(shape, now).0).collect();
        all.extend(self.other(now).map(|(shape, _)| shape));
        all.sort_by_key(|shape| std::cmp::Reverse((shape.window.total_us, shape.since_start.total_us)));
        all
    }

    /// The shape with this id, and its recent past.
    pub fn shape(&self, id: &str) -> Option<ShapeDetail> {
        let now = self.0.now();
        let (shape, merge) = if id == OTHER.0 {
            self.other(now)?
        } else {
            self.read(self.0.registry.find(u64::from_str_radix(id, 16).ok()?).as_deref()?, now)
        };
        Some(ShapeDetail { shape, series: merge.series(now) })
    }

    /// The newest slow statements, the newest first.
    pub fn slow(&self) -> Vec<SlowStatement> {
        self.0.slow.all()
    }

    /// The findings, the newest first. At most 200 are kept.
    pub fn findings(&self) -> Vec<Finding> {
        self.0.findings.all()
    }

    /// All shapes together. It reads all histograms: some milliseconds when there are 500 shapes.
    pub fn totals(&self) -> Totals {
        let now = self.0.now();
        let Merged { merge, shapes, folded } = self.0.registry.merged(now);
        Totals {
            since_start: merge.ever(now),
            window: merge.window(now),
            series: merge.series(now),
            slow: AtomicU64::load(&self.0.slow_count, Ordering::Relaxed),
            shapes,
            folded_shapes: folded,
            findings: self.0.findings.count(),
        }
    }

    fn read(&self, shape: &Shape, now: Now) -> (ShapeSnapshot, Merge) {
        let mut merge = Merge::default();
        shape.add_to(&mut merge, now);
        let (slow, routes) = shape.counts();
        let mut routes: Vec<RouteCalls> = routes
            .into_iter()
            .filter_map(|(route, calls)| Some(RouteCalls { route: self.0.routes.name(route)?, calls }))
            .collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.calls));
        let snapshot = ShapeSnapshot {
            id: hex(shape.id),
            sql: shape.sql.to_string(),
            transaction_control: shape.transaction_control,
            since_start: merge.ever(now),
            window: merge.window(now),
            slow,
            routes,
        };
        (snapshot, merge)
    }

    fn other(&self, now: Now) -> Option<(ShapeSnapshot, Merge)> {
        let other = self.0.registry.other();
        if other.shapes == 0 {
            return None;
        }
        let mut merge = Merge::default();
        merge.add_merged(&other.merge, now);
        let snapshot = ShapeSnapshot {
            id: OTHER.0.to_owned(),
            sql: OTHER.1.to_owned(),
            transaction_control: false,
            since_start: merge.ever(now),
            window: merge.window(now),
            slow: other.slow,
            routes: Vec::new(),
        };
        Some((snapshot, merge))
    }
}
