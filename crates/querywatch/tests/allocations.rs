//! Allocations of recorded statements.

use std::time::Duration;

use diesel::connection::{Instrumentation as _, InstrumentationEvent, StrQueryHelper};
use querywatch::{ConnectionInstrumentation, FindingKind, Outcome, Scope, Watch, time_call};

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
                    (0..100).for_each(|_| statement(&mut instrumentation, "SELECT a FROM t WHERE id = $1"));
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

/// A long job must not accumulate memory, and its late repetitions must still be found.
#[test]
fn a_scope_with_many_shapes_is_bounded() {
    // Each location is a backtrace, which takes memory and time.
    for (shapes, locations) in [(100_000, false), (2_000, true)] {
        let watch = Watch::builder().window(Duration::from_hours(24)).capture_locations(locations).build();
        let record = |sql: &str| watch.record(sql, Duration::from_millis(1), Outcome::Finished, None);
        let record_all = |shapes: u32| {
            for n in 0..shapes {
                record(&format!("SELECT column_{n} FROM a_table WHERE a_column_with_a_name = $1"));
            }
        };
        // Fills the watch, so that the rest of the memory belongs to the scope.
        record_all(1_000);
        let (memory, report) = Scope::new(&watch, "job").run_sync(|| {
            let memory = allocation_counter::measure(|| record_all(shapes));
            (0..9).for_each(|_| record("SELECT late FROM a_table WHERE id = $1"));
            memory
        });
        assert!(memory.bytes_current < 2_000_000, "{} bytes", memory.bytes_current);
        let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
        assert_eq!((finding.kind, finding.calls), (FindingKind::NPlusOne, 9));
        let calls = report.shapes();
        assert!(calls.len() <= 129 && calls[0].sql == "(further shapes)", "{} shapes", calls.len());
        assert_eq!(calls.iter().map(|shape| shape.calls).sum::<u32>(), shapes + 9);
        println!("{shapes} shapes add {} bytes", memory.bytes_current);
    }
}

#[test]
fn recording_a_known_text_allocates_nothing() {
    let watch = Watch::builder().window(Duration::from_hours(24)).capture_locations(false).build();
    let (allocated, _) = Scope::new(&watch, "GET /").run_sync(|| {
        let round = || (0..100).for_each(|_| watch.record("SELECT $1", Duration::ZERO, Outcome::Finished, Some(1)));
        (0..100).map(|_| allocation_counter::measure(round).count_total).min()
    });
    assert_eq!(allocated, Some(0));
}
