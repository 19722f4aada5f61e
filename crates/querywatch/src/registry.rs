//! The shapes of a watch, bounded in number.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::log_limiter::LogLimiter;
use crate::routes::{NO_ROUTE, RouteId};
use crate::shape;
use crate::stats::{DurationRecorder, MergedStats, ReadTime};

/// The maximum length of a stored shape. The id of a longer one still depends on its whole text.
const MAX_TEXT_BYTES: usize = 4_096;
/// The maximum number of routes that a shape counts individually.
const ROUTES: usize = 16;

/// A map whose keys are hashes.
pub(crate) type IdMap<V> = HashMap<u64, V, BuildHasherDefault<IdHasher>>;

#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

/// The statements that differ only in their values.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) id: u64,
    pub(crate) sql: Box<str>,
    pub(crate) is_transaction_control: bool,
    #[cfg_attr(not(feature = "diesel"), expect(dead_code, reason = "only diesel ends a query before its rows"))]
    pub(crate) may_return_rows: bool,
    /// Set if repetitions of the shape are no finding.
    pub(crate) allows_repeats: bool,
    evicted: AtomicBool,
    state: Mutex<ShapeState>,
}

#[derive(Debug, Default)]
struct ShapeState {
    recorder: DurationRecorder,
    last_slot: u64,
    calls: u64,
    slow: u64,
    routes: Vec<(RouteId, u64)>,
    log: LogLimiter,
}

/// A statement that completion.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completion {
    pub(crate) slot: u64,
    pub(crate) end: Instant,
    pub(crate) duration: Duration,
    pub(crate) is_error: bool,
    pub(crate) is_slow: bool,
    pub(crate) rows: Option<u64>,
    pub(crate) route: RouteId,
}

/// The result of recording a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordResult {
    /// The statement was recorded and is not slow.
    Quick,
    /// The statement was recorded and is slow. If it may be logged: the number of suppressed log lines.
    Slow(Option<u32>),
    /// The statement was not recorded, because the registry evicted the shape.
    Evicted,
}

impl Shape {
    fn new(id: u64, sql: &str, allows_repeats: bool, slot: u64) -> Self {
        let text = match sql.get(..sql.floor_char_boundary(MAX_TEXT_BYTES)) {
            Some(start) if start.len() < sql.len() => format!("{start}…").into(),
            _ => sql.into(),
        };
        Self {
            id,
            sql: text,
            is_transaction_control: shape::is_transaction_control(sql),
            may_return_rows: shape::may_return_rows(sql),
            allows_repeats,
            evicted: AtomicBool::new(false),
            state: Mutex::new(ShapeState { last_slot: slot, ..ShapeState::default() }),
        }
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, ShapeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a statement that completion.
    pub(crate) fn record(&self, completion: Completion) -> RecordResult {
        let mut state = self.state();
        // The registry sets it under this lock.
        if self.is_evicted() {
            return RecordResult::Evicted;
        }
        state.recorder.record(completion.slot, completion.duration, completion.is_error, completion.rows);
        state.last_slot = state.last_slot.max(completion.slot);
        state.calls += 1;
        if completion.route != NO_ROUTE {
            match state.routes.iter().position(|(route, _)| *route == completion.route) {
                Some(index) => state.routes[index].1 += 1,
                None if state.routes.len() < ROUTES => state.routes.push((completion.route, 1)),
                None => {}
            }
        }
        if !completion.is_slow {
            return RecordResult::Quick;
        }
        state.slow += 1;
        RecordResult::Slow(state.log.try_acquire(completion.end))
    }

    pub(crate) fn add_to(&self, merged: &mut MergedStats, now: ReadTime) {
        merged.add(&self.state().recorder, now);
    }

    /// Returns the number of slow statements and the calls of each route.
    pub(crate) fn counts(&self) -> (u64, Vec<(RouteId, u64)>) {
        let state = self.state();
        (state.slow, state.routes.clone())
    }
}

/// The shapes of a watch.
#[derive(Debug)]
pub(crate) struct Registry {
    shapes: RwLock<IdMap<Arc<Shape>>>,
    max: usize,
    repeatable: Vec<String>,
    evicted: Mutex<EvictedShapes>,
}

/// The statistics of the evicted shapes.
#[derive(Debug, Default)]
pub(crate) struct EvictedShapes {
    pub(crate) merged: MergedStats,
    pub(crate) slow: u64,
    pub(crate) shapes: u64,
}

/// The statistics of all shapes together.
#[derive(Debug)]
pub(crate) struct RegistryTotals {
    pub(crate) merged: MergedStats,
    /// Number of shapes in the registry.
    pub(crate) shapes: usize,
    /// Number of evicted shapes.
    pub(crate) evicted: u64,
}

impl Registry {
    pub(crate) fn new(max: usize, repeatable: Vec<String>) -> Self {
        Self { shapes: RwLock::default(), max: max.max(1), repeatable, evicted: Mutex::default() }
    }

    /// Returns the shape with this text, which is created if it is new.
    pub(crate) fn get_or_insert(&self, id: u64, sql: &str, now: ReadTime) -> Arc<Shape> {
        if let Some(known) = self.find(id) {
            return known;
        }
        let mut shapes = self.shapes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shapes.get(&id) {
            return Arc::clone(known);
        }
        if shapes.len() >= self.max {
            self.evict(&mut shapes, now);
        }
        let allows_repeats = self.repeatable.iter().any(|part| sql.contains(part.as_str()));
        let shape = Arc::new(Shape::new(id, sql, allows_repeats, now.slot));
        shapes.insert(id, Arc::clone(&shape));
        shape
    }

    /// Returns the shape with this id.
    pub(crate) fn find(&self, id: u64) -> Option<Arc<Shape>> {
        self.shapes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Merges the statistics of all shapes, including the evicted ones, at one point in time.
    pub(crate) fn totals(&self, now: ReadTime) -> RegistryTotals {
        let shapes = self.shapes.read().unwrap_or_else(PoisonError::into_inner);
        let mut merged = MergedStats::default();
        for shape in shapes.values() {
            shape.add_to(&mut merged, now);
        }
        let evicted = self.evicted();
        merged.add_merged(&evicted.merged, now);
        RegistryTotals { merged, shapes: shapes.len(), evicted: evicted.shapes }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Shape>> {
        self.shapes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn evicted(&self) -> std::sync::MutexGuard<'_, EvictedShapes> {
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Evicts the least recently used tenth, so that the search does not run for each new shape.
    fn evict(&self, shapes: &mut IdMap<Arc<Shape>>, now: ReadTime) {
        let mut by_recency: Vec<_> = shapes
            .values()
            .map(|shape| {
                let state = shape.state();
                (state.last_slot, state.calls, shape.id)
            })
            .collect();
        by_recency.sort_unstable();
        let mut evicted = self.evicted();
        for (_, _, id) in by_recency.into_iter().take(self.max.div_ceil(10)) {
            if let Some(shape) = shapes.remove(&id) {
                let mut state = shape.state();
                evicted.merged.add(&state.recorder, now);
                evicted.slow += state.slow;
                evicted.shapes += 1;
                // Scopes and connections may still refer to the shape.
                state.recorder = DurationRecorder::default();
                shape.evicted.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(slot: u64) -> ReadTime {
        ReadTime {
            slot,
            slot_length: Duration::from_secs(10),
            elapsed: Duration::from_secs(1),
            started: Duration::ZERO,
        }
    }

    fn completion(slot: u64, route: RouteId) -> Completion {
        let duration = Duration::from_micros(5);
        Completion { slot, end: Instant::now(), duration, is_error: false, is_slow: false, rows: None, route }
    }

    #[test]
    fn eviction_keeps_recent_shapes_and_loses_no_statement() {
        let registry = Registry::new(10, Vec::new());
        for id in 1..=25 {
            let shape = registry.get_or_insert(id, "SELECT ?", now(id));
            assert_eq!(shape.record(completion(id, NO_ROUTE)), RecordResult::Quick);
            // The first shape stays in use.
            assert_eq!(
                registry.get_or_insert(1, "SELECT ?", now(id)).record(completion(id, NO_ROUTE)),
                RecordResult::Quick
            );
        }
        assert!(registry.all().len() <= 10);
        let RegistryTotals { merged, shapes, evicted } = registry.totals(now(25));
        assert_eq!((shapes, evicted), (registry.all().len(), 25 - registry.all().len() as u64));
        assert_eq!(merged.since_start(now(25)).calls, 50);
        assert_eq!(merged.window(now(25)).calls, 50);
        assert!(registry.find(1).is_some() && registry.find(2).is_none() && registry.find(25).is_some());
    }

    #[test]
    fn an_evicted_shape_records_nothing() {
        let registry = Registry::new(1, Vec::new());
        let first = registry.get_or_insert(1, "a", now(0));
        registry.get_or_insert(2, "b", now(0));
        assert!(first.is_evicted());
        assert_eq!(first.record(completion(0, NO_ROUTE)), RecordResult::Evicted);
    }

    #[test]
    fn routes_and_texts_are_bounded() {
        let registry = Registry::new(10, Vec::new());
        let shape = registry.get_or_insert(1, &"é".repeat(5_000), now(0));
        assert!(shape.sql.len() < MAX_TEXT_BYTES + 10);
        for route in 1..100 {
            shape.record(completion(0, route));
        }
        assert_eq!(shape.counts().1.len(), ROUTES);
    }
}
