//! `time_call` on PostgreSQL: durations that include the rows, and cancelled statements.

use std::time::{Duration, Instant};

use diesel::QueryableByName;
use diesel::sql_types::Integer;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use futures_util::TryStreamExt as _;
use querywatch::{Outcome, Scope, SlowStatement, Watch, time_call};

use crate::fixture::{postgres, shape};

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Integer)]
    #[expect(dead_code, reason = "the test reads no values")]
    n: i32,
}

/// Loads rows that arrive over 200 ms.
async fn stream_rows(conn: &mut AsyncPgConnection) {
    let sql = "SELECT g AS n, pg_sleep(0.002) FROM generate_series(1, 100) g";
    let rows = RunQueryDsl::load_stream::<Row>(diesel::sql_query(sql), conn).await.unwrap();
    assert_eq!(rows.try_fold(0, async |count, _| Ok(count + 1)).await.unwrap(), 100);
}

async fn sleep(conn: &mut AsyncPgConnection, seconds: f64) {
    RunQueryDsl::execute(diesel::sql_query(format!("SELECT pg_sleep({seconds})")), conn).await.unwrap();
}

fn cancelled(watch: &Watch) -> Vec<SlowStatement> {
    watch.slow_statements().into_iter().filter(|statement| statement.outcome == Outcome::Cancelled).collect()
}

#[tokio::test]
async fn a_duration_includes_the_rows() {
    let watch = Watch::builder().build();
    let mut conn = postgres(&watch).await;
    let (_, report) = Scope::new(&watch, "GET /").run(time_call(async { stream_rows(&mut conn).await })).await;
    assert!(shape(&watch, "SELECT g").since_start.max_us >= 200_000);
    assert!(report.db_time >= Duration::from_millis(200));
    assert_eq!(report.statements, 1);
}

#[tokio::test]
async fn a_duration_includes_the_transfer_of_many_rows() {
    let watch = Watch::builder().build();
    let mut conn = postgres(&watch).await;
    let sql = "SELECT g AS n FROM generate_series(1, 200000) g";
    let began = Instant::now();
    let transfer = time_call(async {
        let rows = RunQueryDsl::load_stream::<Row>(diesel::sql_query(sql), &mut conn).await.unwrap();
        // diesel has reported the end of the query.
        let finished = Instant::now();
        assert_eq!(rows.try_fold(0, async |count, _| Ok(count + 1)).await.unwrap(), 200_000);
        finished.elapsed()
    });
    let transfer = transfer.await;
    let took = Duration::from_micros(shape(&watch, "SELECT g").since_start.max_us + 1);
    assert!(took >= transfer && took <= began.elapsed(), "{took:?}, {transfer:?}");
}

#[tokio::test]
async fn the_next_statement_ends_a_query() {
    let watch = Watch::builder().build();
    let mut conn = postgres(&watch).await;
    time_call(async {
        stream_rows(&mut conn).await;
        sleep(&mut conn, 0.5).await;
    })
    .await;
    let (rows, slept) = (shape(&watch, "SELECT g").since_start, shape(&watch, "SELECT pg_sleep").since_start);
    assert!(rows.max_us >= 200_000 && slept.max_us >= 500_000);
    // Neither duration includes the other.
    assert_eq!((rows.calls, slept.calls), (1, 1));
    assert_eq!(watch.totals().since_start.calls, 2);
}

#[tokio::test]
async fn pipelined_queries_share_the_duration_of_the_call() {
    let watch = Watch::builder().build();
    let conn = postgres(&watch).await;
    let began = Instant::now();
    let work = time_call(async {
        let (mut one, mut other) = (&conn, &conn);
        let slept = RunQueryDsl::execute(diesel::sql_query("SELECT pg_sleep(0.2)"), &mut one);
        let sql = "SELECT g AS n FROM generate_series(1, 100) g";
        let (slept, rows) =
            futures_util::future::join(slept, RunQueryDsl::load::<Row>(diesel::sql_query(sql), &mut other)).await;
        (slept.unwrap(), rows.unwrap().len())
    });
    let ((_, rows), report) = Scope::new(&watch, "GET /").run(work).await;
    assert_eq!((report.statements, rows), (2, 100));
    assert!(report.db_time >= Duration::from_millis(200) && report.db_time <= began.elapsed(), "{report:?}");
    assert!(shape(&watch, "SELECT pg_sleep").since_start.max_us >= 200_000);
}

#[tokio::test]
async fn a_statement_that_returns_no_rows_ends_when_it_finishes() {
    let watch = Watch::builder().build();
    let mut conn = postgres(&watch).await;
    time_call(async {
        RunQueryDsl::execute(diesel::sql_query("UPDATE items SET name = 'x'"), &mut conn).await.unwrap();
        assert_eq!(shape(&watch, "UPDATE").since_start.calls, 1);
        RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut conn).await.unwrap();
        assert!(!watch.shapes().iter().any(|shape| shape.sql == "SELECT ?" && shape.since_start.calls > 0));
    })
    .await;
    assert_eq!(shape(&watch, "SELECT ?").since_start.calls, 1);
}

#[tokio::test]
async fn a_future_created_before_the_call_has_a_duration() {
    let watch = Watch::builder().build();
    let mut conn = postgres(&watch).await;
    time_call(RunQueryDsl::execute(diesel::sql_query("SELECT pg_sleep(0.2)"), &mut conn)).await.unwrap();
    assert!(shape(&watch, "SELECT pg_sleep").since_start.max_us >= 200_000);
}

#[tokio::test]
async fn futures_created_before_the_call_are_recorded() {
    let watch = Watch::builder().build();
    let conn = postgres(&watch).await;
    let (mut one, mut other) = (&conn, &conn);
    let slept = RunQueryDsl::execute(diesel::sql_query("SELECT pg_sleep(0.2)"), &mut one);
    let quick = RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut other);
    let (slept, quick) = time_call(futures_util::future::join(slept, quick)).await;
    slept.and(quick).unwrap();
    assert_eq!(watch.totals().since_start.calls, 2);
    assert!(shape(&watch, "SELECT pg_sleep").since_start.max_us >= 200_000);
}

#[tokio::test]
async fn a_time_out_is_a_slow_statement() {
    let watch = Watch::builder().slow_threshold(Duration::from_millis(50)).build();
    let mut conn = postgres(&watch).await;
    let scope = Scope::new(&watch, "GET /").run(async {
        let work = time_call(async {
            RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut conn).await.unwrap();
            sleep(&mut conn, 5.0).await;
        });
        tokio::time::timeout(Duration::from_millis(100), work).await.unwrap_err();
    });
    let (_, report) = scope.await;
    let [slow] = &cancelled(&watch)[..] else { panic!("{:?}", watch.slow_statements()) };
    assert_eq!((slow.outcome, slow.route.as_deref()), (Outcome::Cancelled, Some("GET /")));
    assert_eq!(slow.sql, "(cancelled before its end)");
    assert!(slow.duration_us >= 50_000);
    assert_eq!((report.statements, watch.totals().since_start.errors), (2, 1));
}

#[tokio::test]
async fn a_time_out_has_a_shape_if_the_text_is_captured() {
    let watch = Watch::builder().slow_threshold(Duration::from_millis(50)).capture_cancelled_sql(true).build();
    let mut conn = postgres(&watch).await;
    let work = time_call(async {
        RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut conn).await.unwrap();
        sleep(&mut conn, 5.0).await;
    });
    tokio::time::timeout(Duration::from_millis(100), work).await.unwrap_err();
    let [slow] = &cancelled(&watch)[..] else { panic!("{:?}", watch.slow_statements()) };
    assert_eq!(slow.sql, "SELECT pg_sleep(?)");
    assert_eq!(shape(&watch, "SELECT pg_sleep").since_start.errors, 1);
}

#[tokio::test]
async fn a_time_out_while_rows_arrive_is_a_cancellation() {
    let watch = Watch::builder().slow_threshold(Duration::from_millis(50)).build();
    let mut conn = postgres(&watch).await;
    let work = time_call(async {
        let sql = "SELECT g AS n, pg_sleep(0.001), repeat('x', 9000) FROM generate_series(1, 5000) g";
        let rows = RunQueryDsl::load_stream::<Row>(diesel::sql_query(sql), &mut conn).await.unwrap();
        rows.try_for_each(async |_| Ok(())).await.unwrap();
    });
    tokio::time::timeout(Duration::from_millis(200), work).await.unwrap_err();
    let [slow] = &cancelled(&watch)[..] else { panic!("{:?}", watch.slow_statements()) };
    assert!(slow.sql.starts_with("SELECT g"), "{slow:?}");
}

#[tokio::test]
async fn a_call_without_statements_records_nothing() {
    let watch = Watch::builder().build();
    time_call(async {}).await;
    assert!(futures_util::FutureExt::now_or_never(time_call(std::future::pending::<()>())).is_none());
    assert!(watch.shapes().is_empty());
}
