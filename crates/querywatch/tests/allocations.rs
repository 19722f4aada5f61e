//! Allocations of recorded statements.

use std::time::Duration;

use diesel::connection::{Instrumentation as _, InstrumentationEvent, StrQueryHelper};
use querywatch::{ConnectionInstrumentation, Scope, Watch, time_call};

/// Sends the events of a query by diesel-async on PostgreSQL.
fn statement(instrumentation: &mut ConnectionInstrumentation, sql: &str) {
    let sql = StrQueryHelper::new(sql);
    instrumentation.on_connection_event(InstrumentationEvent::start_query(&sql));
    instrumentation.on_connection_event(InstrumentationEvent::finish_query(&sql, None));
}

#[test]
fn a_known_shape_allocates_nothing() {
    // A long window closes no slot during the test.
    let watch = Watch::builder().window(Duration::from_hours(24)).capture_locations(false).build();
    let mut instrumentation = watch.instrumentation();
    let queries = ["SELECT a FROM t WHERE id = $1", "INSERT INTO t VALUES ($1, $2)", "BEGIN", "COMMIT"];
    let mut round =
        |times: usize| (0..times).for_each(|_| queries.iter().for_each(|sql| statement(&mut instrumentation, sql)));
    let scope = Scope::new(&watch, "GET /").request_id("r-1");
    let (allocated, _) = scope.run_sync(|| {
        round(1_000);
        // A histogram grows with the longest duration. One of a hundred rounds runs without growth.
        (0..100).map(|_| allocation_counter::measure(|| round(100)).count_total).min()
    });
    assert_eq!(allocated, Some(0));
    assert_eq!(watch.totals().since_start.calls, 4 * 11_000);
}

#[tokio::test]
async fn a_timed_call_allocates_nothing() {
    let watch = Watch::builder().window(Duration::from_hours(24)).capture_locations(false).build();
    let mut instrumentation = watch.instrumentation();
    let scope = Scope::new(&watch, "GET /").run(async {
        let mut allocated = u64::MAX;
        for _ in 0..100 {
            let before = allocation_counter::measure(|| {
                let work = time_call(async {
                    (0..100).for_each(|_| statement(&mut instrumentation, "SELECT a FROM t WHERE id = $1"))
                });
                futures_util::FutureExt::now_or_never(work).unwrap();
            });
            allocated = allocated.min(before.count_total);
        }
        allocated
    });
    assert_eq!(scope.await.0, 0);
}

#[test]
fn the_readme_states_the_memory_of_a_shape() {
    let watch = Watch::builder().window(Duration::from_hours(24)).build();
    let mut instrumentation = watch.instrumentation();
    let shapes = 200;
    let memory = allocation_counter::measure(|| {
        for n in 0..shapes {
            let sql =
                format!("SELECT c{n} FROM a_table WHERE a_column_with_a_name = $1 AND another_column_with_a_name = $2");
            (0..50).for_each(|_| statement(&mut instrumentation, &sql));
        }
    });
    let each = memory.bytes_current / shapes;
    assert!((1_000..8_000).contains(&each), "{each} bytes");
}
