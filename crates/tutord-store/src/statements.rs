//! Counts the SQL statements that a task issues.
//!
//! Each connection carries a diesel `Instrumentation` that adds to the counter of the surrounding
//! [`count`], if there is one. `BEGIN`, `COMMIT` and `ROLLBACK` are counted too: each is a round trip.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use futures_util::future::Either;

tokio::task_local! {
    static ISSUED: Arc<AtomicU32>;
}

/// Runs `future` and says how many statements were issued on its behalf.
///
/// Work that `future` spawns as tasks of their own is counted where it is wrapped in [`carry`].
pub async fn count<F: Future>(future: F) -> (F::Output, u32) {
    let counter = Arc::new(AtomicU32::new(0));
    let output = ISSUED.scope(Arc::clone(&counter), future).await;
    (output, counter.load(Ordering::Relaxed))
}

/// Takes the surrounding [`count`] along into a task that is about to be spawned.
pub fn carry<F: Future>(future: F) -> impl Future<Output = F::Output> {
    match ISSUED.try_with(Arc::clone) {
        Ok(counter) => Either::Left(ISSUED.scope(counter, future)),
        Err(_) => Either::Right(future),
    }
}

/// How many statements were issued so far within the surrounding [`count`]; `None` outside of one.
pub fn issued() -> Option<u32> {
    ISSUED.try_with(|issued| issued.load(Ordering::Relaxed)).ok()
}

/// The instrumentation that every connection of the adapters carries.
pub(crate) struct Counter;

impl Instrumentation for Counter {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if matches!(event, InstrumentationEvent::FinishQuery { .. }) {
            // Pool maintenance and background work run outside of any `count`.
            let _ = ISSUED.try_with(|issued| issued.fetch_add(1, Ordering::Relaxed));
        }
    }
}
