//! The whole of what one connection does for a caller, so that a statement's end is when its rows have arrived.
//!
//! What diesel tells is not enough: on PostgreSQL a query is reported as finished when its first row may be read, and one
//! whose future is dropped is never reported as finished. A call closes both gaps: it knows when the work is over.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::events::Outcome;
use crate::registry::Shape;
use crate::watch::Inner;

tokio::task_local! {
    static CALL: RefCell<Call>;
}

/// Pipelined statements whose names are kept until they finish.
const NAMES: usize = 64;

/// Runs everything that is done with one connection between taking it from the pool and giving it back, so that the time of
/// its statements is the whole:
///
/// - the end of a query is when the next statement begins or the call ends, rows included;
/// - when the call is dropped (a time-out), the statement that was waited for is recorded as [`Outcome::Cancelled`].
///
/// Give it an async block in which the statements are made, not a statement's future: diesel tells of a statement when it is
/// made. What else is awaited in the call, after a query, counts as that query's time: keep it short. A statement that is made
/// in the call and given up within it, while the call goes on, counts as part of the next one's time.
///
/// Of a statement that was cancelled the text is not known, as diesel says it at its end alone (at its beginning in a form
/// that takes longer): see [`name_cancelled`](crate::WatchBuilder::name_cancelled).
pub async fn call<F: Future>(future: F) -> F::Output {
    let work = async {
        let end = End;
        let output = future.await;
        end.complete();
        output
    };
    CALL.scope(RefCell::default(), work).await
}

/// Ends the call; when it is dropped, in the middle.
struct End;

impl End {
    fn complete(self) {
        std::mem::forget(self);
        let Some((watch, call)) = take() else { return };
        if let Some(open) = call.open {
            open.end(&watch, Instant::now(), Outcome::Finished);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let Some((watch, call)) = take() else { return };
        let now = Instant::now();
        if let Some(open) = call.open {
            open.end(&watch, now, Outcome::Cancelled);
        } else if call.outstanding > 0 {
            let began = call.pairing.began().unwrap_or(now);
            let shape = call.names.into_iter().next().unwrap_or_else(|| watch.cancelled_shape());
            crate::scope::count(&shape, None, &watch.settings);
            watch.ended(&shape, now, now.saturating_duration_since(began), Outcome::Cancelled);
        }
    }
}

fn take() -> Option<(Arc<Inner>, Call)> {
    let mut call = CALL.try_with(RefCell::take).ok()?;
    Some((call.watch.take()?, call))
}

/// When the statements of a connection began and finished.
///
/// Events say neither which statement they are of, nor that one was given up. So a statement counts from when it was made or
/// from when the one before it finished, whichever is later: that is right for statements one after the other and for
/// pipelined ones, of which the server works on one at a time, and one that was given up spoils no later one.
#[derive(Debug, Default)]
pub(crate) struct Pairing {
    /// The first that was made since the last one finished.
    started: Option<Instant>,
    finished: Option<Instant>,
}

impl Pairing {
    /// Forgets what was made before: outside of a call it may have been given up long ago.
    pub(crate) fn start_anew(&mut self, now: Instant) {
        self.started = Some(now);
    }

    fn began(&self) -> Option<Instant> {
        self.started.max(self.finished)
    }

    pub(crate) fn finish(&mut self, now: Instant) -> Option<Instant> {
        let began = self.began();
        (self.started, self.finished) = (None, Some(now));
        began
    }
}

/// The call of the current task.
#[derive(Debug, Default)]
struct Call {
    /// From the first event on.
    watch: Option<Arc<Inner>>,
    pairing: Pairing,
    /// Statements that were made and did not finish.
    outstanding: usize,
    /// Their shapes, where these are wanted.
    names: Vec<Arc<Shape>>,
    open: Option<OpenQuery>,
}

/// A query that finished well, as diesel has it, and whose rows may still arrive.
#[derive(Debug)]
struct OpenQuery {
    shape: Arc<Shape>,
    began: Instant,
}

impl OpenQuery {
    fn end(self, watch: &Arc<Inner>, end: Instant, outcome: Outcome) {
        watch.ended(&self.shape, end, end.saturating_duration_since(self.began), outcome);
    }
}

/// Whether a call is under way.
pub(crate) fn is_active() -> bool {
    CALL.try_with(|_| ()).is_ok()
}

/// Does something with the call, if there is one and it is not another watch's.
fn with<T>(watch: &Arc<Inner>, act: impl FnOnce(&mut Call) -> T) -> Option<T> {
    let act = |call: &RefCell<Call>| {
        let mut call = call.try_borrow_mut().ok()?;
        Arc::ptr_eq(call.watch.get_or_insert_with(|| Arc::clone(watch)), watch).then(|| act(&mut call))
    };
    CALL.try_with(act).ok().flatten()
}

/// A statement was made.
pub(crate) fn started(watch: &Arc<Inner>, outside: &mut Pairing, now: Instant, name: Option<Arc<Shape>>) {
    let open = with(watch, |call| {
        if call.pairing.started.is_none() {
            call.pairing.started = Some(now);
            call.outstanding = 0;
            call.names.clear();
        }
        call.outstanding += 1;
        if call.names.len() < NAMES {
            call.names.extend(name);
        }
        call.open.take()
    });
    match open {
        Some(Some(open)) => open.end(watch, now, Outcome::Finished),
        Some(None) => {}
        None => outside.start_anew(now),
    }
}

/// A statement finished. What it took; `None` when that is not known yet.
pub(crate) fn finished(
    watch: &Arc<Inner>,
    outside: &mut Pairing,
    now: Instant,
    shape: &Arc<Shape>,
    outcome: Outcome,
) -> Option<Duration> {
    let seen = with(watch, |call| {
        // Those that were made before the call was may finish one after the other without a beginning in it.
        let before = call.open.take().zip(call.pairing.finished);
        call.pairing.started = call.pairing.started.or(outside.started.take());
        let began = call.pairing.finish(now).unwrap_or(now);
        call.outstanding = call.outstanding.saturating_sub(1);
        if let Some(at) = call.names.iter().position(|name| name.id == shape.id) {
            call.names.remove(at);
        }
        // The rows of one that is followed by another in a pipeline arrive before that other finishes.
        let rows_follow = call.outstanding == 0 && shape.may_return_rows && outcome == Outcome::Finished;
        if rows_follow {
            call.open = Some(OpenQuery { shape: Arc::clone(shape), began });
        }
        (before, (!rows_follow).then(|| now.saturating_duration_since(began)))
    });
    let Some((before, took)) = seen else {
        return Some(now.saturating_duration_since(outside.finish(now).unwrap_or(now)));
    };
    if let Some((open, finished)) = before {
        open.end(watch, finished, Outcome::Finished);
    }
    took
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times, in milliseconds, of the statements that finish.
    fn times(events: &[(char, u64)]) -> Vec<u64> {
        let (origin, mut pairing) = (Instant::now(), Pairing::default());
        let mut times = Vec::new();
        for (event, at) in events {
            let now = origin + Duration::from_millis(*at);
            match event {
                'S' => pairing.start_anew(now),
                _ => times.push((now - pairing.finish(now).unwrap_or(now)).as_millis().try_into().unwrap()),
            }
        }
        times
    }

    #[test]
    fn one_after_the_other() {
        assert_eq!(times(&[('S', 0), ('F', 5), ('S', 100), ('F', 103)]), [5, 3]);
    }

    #[test]
    fn pipelined_ones_wait_for_each_other_and_that_is_not_their_time() {
        assert_eq!(times(&[('S', 0), ('S', 0), ('S', 0), ('F', 5), ('F', 6), ('F', 9)]), [5, 1, 3]);
    }

    #[test]
    fn one_that_was_given_up_spoils_nothing() {
        assert_eq!(times(&[('S', 0), ('S', 1_000), ('F', 1_005), ('S', 2_000), ('F', 2_001)]), [5, 1]);
    }

    #[test]
    fn one_without_a_beginning_took_no_time() {
        assert_eq!(times(&[('F', 5)]), [0]);
    }
}
