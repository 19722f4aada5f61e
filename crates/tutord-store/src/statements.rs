//! Counts the SQL statements that a task issues.
//!
//! Each connection carries a diesel `Instrumentation` that adds to the counter of the surrounding
//! [`count`], if there is one. `BEGIN`, `COMMIT` and `ROLLBACK` are counted too: each is a round trip.

use std::cell::Cell;
use std::future::Future;

use diesel::connection::{Instrumentation, InstrumentationEvent};

tokio::task_local! {
    static ISSUED: Cell<u32>;
}

/// Runs `future` and says how many statements were issued on its behalf.
///
/// Work that `future` spawns as tasks of their own is not counted.
pub async fn count<F: Future>(future: F) -> (F::Output, u32) {
    ISSUED
        .scope(Cell::new(0), async {
            let output = future.await;
            (output, ISSUED.with(Cell::get))
        })
        .await
}

/// How many statements were issued so far within the surrounding [`count`]; `None` outside of one.
pub fn issued() -> Option<u32> {
    ISSUED.try_with(Cell::get).ok()
}

/// The instrumentation that every connection of the adapters carries.
pub(crate) struct Counter;

impl Instrumentation for Counter {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if matches!(event, InstrumentationEvent::FinishQuery { .. }) {
            // Pool maintenance and background work run outside of any `count`.
            let _ = ISSUED.try_with(|issued| issued.set(issued.get() + 1));
        }
    }
}
