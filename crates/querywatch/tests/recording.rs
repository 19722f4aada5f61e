//! Recording without diesel.
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use futures_util::FutureExt as _;
use querywatch::{FindingKind, Outcome, Scope, ShapeSnapshot, Watch};

const SQL: &str = "SELECT name FROM items WHERE id = $1";

fn only_shape(watch: &Watch) -> ShapeSnapshot {
    let shapes = watch.shapes();
    let [shape] = &shapes[..] else { panic!("{shapes:?}") };
    shape.clone()
}

#[test]
fn statements_have_rows_durations_and_outcomes() {
    let watch = Watch::builder().build();
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| {
        watch.record(SQL, Duration::from_millis(3), Outcome::Finished, Some(2));
        watch.record(SQL, Duration::from_millis(5), Outcome::Failed, None);
        watch.record(SQL, Duration::ZERO, Outcome::Unknown, Some(5));
    });
    assert_eq!((report.statements, report.db_time), (3, Duration::from_millis(8)));
    let shape = only_shape(&watch);
    assert_eq!((shape.since_start.calls, shape.since_start.errors, shape.since_start.rows), (3, 1, Some(7)));
    assert_eq!((shape.window.rows, shape.window.max_us), (Some(7), 5_000));
    assert_eq!(shape.sql, "SELECT name FROM items WHERE id = ?");
}

#[test]
fn unknown_rows_are_not_zero() {
    let watch = Watch::builder().build();
    watch.record(SQL, Duration::ZERO, Outcome::Finished, None);
    assert_eq!(only_shape(&watch).since_start.rows, None);
    assert_eq!(watch.totals().since_start.rows, None);
}

#[test]
fn n_plus_one_is_found() {
    let watch = Watch::builder().build();
    let run = |sql: &dyn Fn(i32) -> String| {
        let record = || (0..9).for_each(|id| watch.record(&sql(id), Duration::ZERO, Outcome::Finished, Some(1)));
        Scope::new(&watch, "GET /").run_sync(record).1.findings[0].kind
    };
    assert_eq!(run(&|_| SQL.to_owned()), FindingKind::NPlusOne);
    assert_eq!(run(&|id| format!("SELECT name FROM items WHERE id = {id}")), FindingKind::NPlusOne);
    assert_eq!(run(&|_| "SELECT count(*) FROM items".to_owned()), FindingKind::RepeatedQuery);
}

#[tokio::test]
async fn timed_statements_have_an_outcome() {
    let watch = Watch::builder().slow_threshold(Duration::ZERO).build();
    let (_, report) = Scope::new(&watch, "GET /")
        .run(async {
            assert_eq!(watch.timed(SQL, async { Ok::<_, ()>(5) }).await, Ok(5));
            assert_eq!(watch.timed_sync(SQL, || Err::<(), _>("no")), Err("no"));
            let pending = watch.timed(SQL, std::future::pending::<Result<(), ()>>());
            assert_eq!(pending.now_or_never(), None);
        })
        .await;
    assert_eq!((report.statements, report.findings.len()), (3, 0));
    let outcomes: Vec<_> = watch.slow_statements().iter().map(|statement| statement.outcome).collect();
    assert_eq!(outcomes, [Outcome::Cancelled, Outcome::Failed, Outcome::Finished]);
    assert_eq!(only_shape(&watch).since_start.errors, 2);
}

#[test]
fn a_dialect_applies_to_texts() {
    let watch = Watch::builder().dialect(querywatch::Dialect::MySql).build();
    watch.record("SELECT \"secret\"", Duration::ZERO, Outcome::Finished, None);
    assert_eq!(only_shape(&watch).sql, "SELECT ?");
}

#[test]
fn a_text_whose_shape_was_evicted_is_recorded() {
    let watch = Watch::builder().max_shapes(2).build();
    for n in 0..5_000_u32 {
        watch.record(&format!("SELECT c{} FROM t", n % 1_000), Duration::ZERO, Outcome::Finished, None);
    }
    assert_eq!(watch.totals().since_start.calls, 5_000);
    assert!(watch.totals().shapes <= 2);
    let text = |n: u32| format!("SELECT c{n} FROM t");
    watch.record(&text(7), Duration::ZERO, Outcome::Finished, None);
    assert!(watch.shapes().iter().any(|shape| shape.sql == text(7)), "{:?}", watch.shapes());
    let sum: u64 = watch.shapes().iter().map(|shape| shape.since_start.calls).sum();
    assert_eq!(sum, 5_001);
}
