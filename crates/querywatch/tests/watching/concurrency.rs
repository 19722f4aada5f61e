//! Many threads report to one watch.

use diesel::connection::{Instrumentation as _, InstrumentationEvent, StrQueryHelper};
use querywatch::{Scope, Watch};

/// Evictions and reads during recording lose no statement.
#[test]
fn every_statement_is_counted_once() {
    let watch = Watch::builder().max_shapes(5).build();
    let per_thread = 5_000_u32;
    std::thread::scope(|threads| {
        for thread in 0..4 {
            let watch = &watch;
            threads.spawn(move || {
                let mut instrumentation = watch.instrumentation();
                let (_, report) = Scope::new(watch, "GET /").run_sync(|| {
                    for n in 0..per_thread {
                        let sql = format!("SELECT c{} FROM t", (n + thread) % 20);
                        let sql = StrQueryHelper::new(&sql);
                        instrumentation.on_connection_event(InstrumentationEvent::start_query(&sql));
                        instrumentation.on_connection_event(InstrumentationEvent::finish_query(&sql, None));
                    }
                });
                assert_eq!(report.statements, per_thread);
            });
        }
        let mut last = 0;
        while last < u64::from(4 * per_thread) {
            let totals = watch.totals();
            assert!(totals.since_start.calls >= last && totals.shapes <= 5);
            last = totals.since_start.calls;
            watch.shapes();
        }
    });
    assert_eq!(watch.totals().since_start.calls, u64::from(4 * per_thread));
}
