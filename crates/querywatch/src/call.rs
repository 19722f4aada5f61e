//! Durations of statements that include the arrival of their rows.
//!
//! diesel's events are not sufficient for that: on PostgreSQL a query finishes when its first row can be read, and a query
//! whose future is dropped does not finish at all. A timed call closes both gaps, because it observes the end of the work.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collector::Collector;
use crate::context;
use crate::events::Outcome;
use crate::registry::Shape;

tokio::task_local! {
    static CALL: RefCell<Call>;
}

/// The maximum number of pipelined statements whose shapes are stored until they finish.
const MAX_PENDING_SHAPES: usize = 64;

/// Runs the work on one connection, from its checkout to its return to the pool, and measures its statements completely:
///
/// - A query ends when the next statement starts or the call ends, so its duration includes its rows.
/// - If the call is dropped, as by a time-out, the pending statement is recorded as [`Outcome::Cancelled`].
///
/// Pass an async block that creates the statements, not the future of a statement: diesel reports a statement when it is
/// created. Other futures that the block awaits after a query count as part of that query, so keep it short. A statement
/// that the block creates and drops counts as part of the next one.
///
/// The text of a cancelled statement is unknown unless
/// [`capture_cancelled_sql`](crate::WatchBuilder::capture_cancelled_sql) is set.
pub async fn time_call<F: Future>(future: F) -> F::Output {
    let work = async {
        let guard = CallGuard;
        let output = future.await;
        guard.complete();
        output
    };
    CALL.scope(RefCell::default(), work).await
}

/// Ends the call. Dropping it cancels the call.
struct CallGuard;

impl CallGuard {
    fn complete(self) {
        std::mem::forget(self);
        let Some((collector, call)) = take() else { return };
        if let Some(open) = call.open {
            open.end(&collector, Instant::now(), Outcome::Finished);
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let Some((collector, call)) = take() else { return };
        let now = Instant::now();
        if let Some(open) = call.open {
            open.end(&collector, now, Outcome::Cancelled);
        } else if call.pending > 0 {
            let start = call.timer.start().unwrap_or(now);
            let shape = call.pending_shapes.into_iter().next().unwrap_or_else(|| collector.cancelled_shape());
            context::count(&collector, &shape, None);
            context::complete(&collector, &shape, now, now.saturating_duration_since(start), Outcome::Cancelled, None);
        }
    }
}

fn take() -> Option<(Arc<Collector>, Call)> {
    let mut call = CALL.try_with(RefCell::take).ok()?;
    Some((call.collector.take()?, call))
}

/// The start and end times of the statements of a connection.
///
/// An event names neither its statement nor the statements that were dropped. A statement therefore starts when it was
/// created or when the previous one finished, whichever is later. This is right for sequential statements and for
/// pipelined ones, which the server executes one after another, and a dropped statement affects no later one.
#[derive(Debug, Default)]
pub(crate) struct StatementTimer {
    /// The first statement that was created since the last one finished.
    created: Option<Instant>,
    finished: Option<Instant>,
}

impl StatementTimer {
    /// Starts a statement and discards earlier ones, which may have been dropped.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.created = Some(now);
    }

    fn start(&self) -> Option<Instant> {
        self.created.max(self.finished)
    }

    /// Ends a statement. Returns its start.
    pub(crate) fn finish(&mut self, now: Instant) -> Option<Instant> {
        let start = self.start();
        (self.created, self.finished) = (None, Some(now));
        start
    }
}

/// The call of the current task.
#[derive(Debug, Default)]
struct Call {
    /// Set by the first event.
    collector: Option<Arc<Collector>>,
    timer: StatementTimer,
    /// Number of statements that were created and have not finished.
    pending: usize,
    /// The shapes of the pending statements, if they are captured.
    pending_shapes: Vec<Arc<Shape>>,
    open: Option<OpenQuery>,
}

/// A query that finished according to diesel, and whose rows may still arrive.
#[derive(Debug)]
struct OpenQuery {
    shape: Arc<Shape>,
    start: Instant,
}

impl OpenQuery {
    fn end(self, collector: &Arc<Collector>, end: Instant, outcome: Outcome) {
        context::complete(collector, &self.shape, end, end.saturating_duration_since(self.start), outcome, None);
    }
}

/// Returns whether the current task is in a call.
pub(crate) fn is_active() -> bool {
    CALL.try_with(|_| ()).is_ok()
}

/// Updates the call of the current task, unless it belongs to another watch.
fn with_call<T>(collector: &Arc<Collector>, update: impl FnOnce(&mut Call) -> T) -> Option<T> {
    let update = |call: &RefCell<Call>| {
        let mut call = call.try_borrow_mut().ok()?;
        let own = call.collector.get_or_insert_with(|| Arc::clone(collector));
        Arc::ptr_eq(own, collector).then(|| update(&mut call))
    };
    CALL.try_with(update).ok().flatten()
}

/// Starts a statement. `outside` is the timer for statements outside of a call.
pub(crate) fn start(collector: &Arc<Collector>, outside: &mut StatementTimer, now: Instant, shape: Option<Arc<Shape>>) {
    let open = with_call(collector, |call| {
        if call.timer.created.is_none() {
            call.timer.created = Some(now);
            call.pending = 0;
            call.pending_shapes.clear();
        }
        call.pending += 1;
        if call.pending_shapes.len() < MAX_PENDING_SHAPES {
            call.pending_shapes.extend(shape);
        }
        call.open.take()
    });
    match open {
        Some(Some(open)) => open.end(collector, now, Outcome::Finished),
        Some(None) => {}
        None => outside.restart(now),
    }
}

/// Ends a statement. Returns its duration, or `None` if its rows may still arrive.
pub(crate) fn finish(
    collector: &Arc<Collector>,
    outside: &mut StatementTimer,
    now: Instant,
    shape: &Arc<Shape>,
    outcome: Outcome,
) -> Option<Duration> {
    let finished = with_call(collector, |call| {
        // Statements that were created before the call finish one after another without a start in the call.
        let previous = call.open.take().zip(call.timer.finished);
        call.timer.created = call.timer.created.or(outside.created.take());
        let start = call.timer.finish(now).unwrap_or(now);
        call.pending = call.pending.saturating_sub(1);
        if let Some(index) = call.pending_shapes.iter().position(|pending| pending.id == shape.id) {
            call.pending_shapes.remove(index);
        }
        // The rows of a pipelined statement arrive before the next statement finishes.
        let rows_follow = call.pending == 0 && shape.may_return_rows && outcome == Outcome::Finished;
        if rows_follow {
            call.open = Some(OpenQuery { shape: Arc::clone(shape), start });
        }
        (previous, (!rows_follow).then(|| now.saturating_duration_since(start)))
    });
    let Some((previous, duration)) = finished else {
        return Some(now.saturating_duration_since(outside.finish(now).unwrap_or(now)));
    };
    if let Some((open, end)) = previous {
        open.end(collector, end, Outcome::Finished);
    }
    duration
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the durations of the finished statements, in milliseconds.
    fn durations(events: &[(char, u64)]) -> Vec<u64> {
        let (origin, mut timer) = (Instant::now(), StatementTimer::default());
        let mut durations = Vec::new();
        for (event, at) in events {
            let now = origin + Duration::from_millis(*at);
            match event {
                'S' => timer.restart(now),
                _ => durations.push((now - timer.finish(now).unwrap_or(now)).as_millis().try_into().unwrap()),
            }
        }
        durations
    }

    #[test]
    fn sequential_statements() {
        assert_eq!(durations(&[('S', 0), ('F', 5), ('S', 100), ('F', 103)]), [5, 3]);
    }

    #[test]
    fn pipelined_statements_do_not_include_the_wait_for_each_other() {
        assert_eq!(durations(&[('S', 0), ('S', 0), ('S', 0), ('F', 5), ('F', 6), ('F', 9)]), [5, 1, 3]);
    }

    #[test]
    fn a_dropped_statement_affects_no_later_one() {
        assert_eq!(durations(&[('S', 0), ('S', 1_000), ('F', 1_005), ('S', 2_000), ('F', 2_001)]), [5, 1]);
    }

    #[test]
    fn a_statement_without_a_start_has_no_duration() {
        assert_eq!(durations(&[('F', 5)]), [0]);
    }
}
