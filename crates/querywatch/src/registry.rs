//! The shapes that are known, of which there is a bounded number.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::limiter::Limiter;
use crate::routes::{NO_ROUTE, RouteId};
use crate::shape;
use crate::stats::{Merge, Now, Recorder};

/// Longer shapes are cut off. They are still told apart: their identity comes from the whole.
const TEXT_BYTES: usize = 4_096;
/// Routes of a shape that are counted one by one.
const ROUTES: usize = 16;

/// A map whose keys are hashes already.
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

/// Statements that differ in their values alone.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) id: u64,
    pub(crate) sql: Box<str>,
    pub(crate) transaction_control: bool,
    pub(crate) may_return_rows: bool,
    /// Whether it may be repeated as often as it likes.
    pub(crate) may_repeat: bool,
    evicted: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    recorder: Recorder,
    last_slot: u64,
    calls: u64,
    slow: u64,
    routes: Vec<(RouteId, u64)>,
    log: Limiter,
}

/// A statement of a shape that ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) slot: u64,
    pub(crate) end: Instant,
    pub(crate) took: Duration,
    pub(crate) failed: bool,
    pub(crate) slow: bool,
    pub(crate) route: RouteId,
}

/// What to do about a statement that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// Nothing.
    Quick,
    /// Log it as slow, with the number of those that were not logged since the last; or don't.
    Slow(Option<u32>),
    /// Nothing was recorded: the shape is no longer kept.
    Evicted,
}

impl Shape {
    fn new(id: u64, sql: &str, may_repeat: bool, slot: u64) -> Self {
        let text = match sql.get(..sql.floor_char_boundary(TEXT_BYTES)) {
            Some(start) if start.len() < sql.len() => format!("{start}…").into(),
            _ => sql.into(),
        };
        Self {
            id,
            sql: text,
            transaction_control: shape::is_transaction_control(sql),
            may_return_rows: shape::may_return_rows(sql),
            may_repeat,
            evicted: AtomicBool::new(false),
            state: Mutex::new(State { last_slot: slot, ..State::default() }),
        }
    }

    pub(crate) fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, ended: Ended) -> Recorded {
        let mut state = self.state();
        // Under the lock: who evicts sets it there.
        if self.is_evicted() {
            return Recorded::Evicted;
        }
        state.recorder.record(ended.slot, ended.took, ended.failed);
        state.last_slot = state.last_slot.max(ended.slot);
        state.calls += 1;
        if ended.route != NO_ROUTE {
            match state.routes.iter().position(|(route, _)| *route == ended.route) {
                Some(known) => state.routes[known].1 += 1,
                None if state.routes.len() < ROUTES => state.routes.push((ended.route, 1)),
                None => {}
            }
        }
        if !ended.slow {
            return Recorded::Quick;
        }
        state.slow += 1;
        Recorded::Slow(state.log.admit(ended.end))
    }

    pub(crate) fn add_to(&self, merge: &mut Merge, now: Now) {
        merge.add(&self.state().recorder, now);
    }

    /// How many were slow, and the calls of each route.
    pub(crate) fn counts(&self) -> (u64, Vec<(RouteId, u64)>) {
        let state = self.state();
        (state.slow, state.routes.clone())
    }
}

/// All shapes.
#[derive(Debug)]
pub(crate) struct Registry {
    shapes: RwLock<IdMap<Arc<Shape>>>,
    max: usize,
    allowed: Vec<String>,
    other: Mutex<Other>,
}

/// The times of the shapes that are no longer kept.
#[derive(Debug, Default)]
pub(crate) struct Other {
    pub(crate) merge: Merge,
    pub(crate) slow: u64,
    pub(crate) shapes: u64,
}

/// All shapes together.
#[derive(Debug)]
pub(crate) struct Merged {
    pub(crate) merge: Merge,
    /// Those that are kept.
    pub(crate) shapes: usize,
    pub(crate) folded: u64,
}

impl Registry {
    pub(crate) fn new(max: usize, allowed: Vec<String>) -> Self {
        Self { shapes: RwLock::default(), max: max.max(1), allowed, other: Mutex::default() }
    }

    /// The shape with this text, which is made where it is new.
    pub(crate) fn get(&self, id: u64, sql: &str, now: Now) -> Arc<Shape> {
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
        let may_repeat = self.allowed.iter().any(|part| sql.contains(part.as_str()));
        let shape = Arc::new(Shape::new(id, sql, may_repeat, now.slot));
        shapes.insert(id, Arc::clone(&shape));
        shape
    }

    pub(crate) fn find(&self, id: u64) -> Option<Arc<Shape>> {
        self.shapes.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Everything, also what is no longer kept, as of one moment: no shape is folded meanwhile.
    pub(crate) fn merged(&self, now: Now) -> Merged {
        let shapes = self.shapes.read().unwrap_or_else(PoisonError::into_inner);
        let mut merge = Merge::default();
        for shape in shapes.values() {
            shape.add_to(&mut merge, now);
        }
        let other = self.other();
        merge.add_merged(&other.merge, now);
        Merged { merge, shapes: shapes.len(), folded: other.shapes }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Shape>> {
        self.shapes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn other(&self) -> std::sync::MutexGuard<'_, Other> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a tenth, so that the search for the coldest is not repeated for each new shape.
    fn evict(&self, shapes: &mut IdMap<Arc<Shape>>, now: Now) {
        let mut by_use: Vec<_> = shapes
            .values()
            .map(|shape| {
                let state = shape.state();
                (state.last_slot, state.calls, shape.id)
            })
            .collect();
        by_use.sort_unstable();
        let mut other = self.other();
        for (_, _, id) in by_use.into_iter().take(self.max.div_ceil(10)) {
            if let Some(shape) = shapes.remove(&id) {
                let state = shape.state();
                other.merge.add(&state.recorder, now);
                other.slow += state.slow;
                other.shapes += 1;
                shape.evicted.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(slot: u64) -> Now {
        Now { slot, slot_length: Duration::from_secs(10), elapsed: Duration::from_secs(1), began: Duration::ZERO }
    }

    fn ended(slot: u64, route: RouteId) -> Ended {
        let took = Duration::from_micros(5);
        Ended { slot, end: Instant::now(), took, failed: false, slow: false, route }
    }

    #[test]
    fn the_coldest_are_folded_and_nothing_is_lost() {
        let registry = Registry::new(10, Vec::new());
        for id in 1..=25 {
            let shape = registry.get(id, "SELECT ?", now(id));
            assert_eq!(shape.record(ended(id, NO_ROUTE)), Recorded::Quick);
            // The first stays warm.
            assert_eq!(registry.get(1, "SELECT ?", now(id)).record(ended(id, NO_ROUTE)), Recorded::Quick);
        }
        assert!(registry.all().len() <= 10);
        let Merged { merge, shapes, folded } = registry.merged(now(25));
        assert_eq!((shapes, folded), (registry.all().len(), 25 - registry.all().len() as u64));
        assert_eq!(merge.ever(now(25)).calls, 50);
        assert_eq!(merge.window(now(25)).calls, 50);
        assert!(registry.find(1).is_some() && registry.find(2).is_none() && registry.find(25).is_some());
    }

    #[test]
    fn a_shape_that_was_evicted_records_nothing() {
        let registry = Registry::new(1, Vec::new());
        let first = registry.get(1, "a", now(0));
        registry.get(2, "b", now(0));
        assert!(first.is_evicted());
        assert_eq!(first.record(ended(0, NO_ROUTE)), Recorded::Evicted);
    }

    #[test]
    fn routes_and_texts_are_bounded() {
        let registry = Registry::new(10, Vec::new());
        let shape = registry.get(1, &"é".repeat(5_000), now(0));
        assert!(shape.sql.len() < TEXT_BYTES + 10);
        for route in 1..100 {
            shape.record(ended(0, route));
        }
        assert_eq!(shape.counts().1.len(), ROUTES);
    }
}
