//! diesel-async on PostgreSQL.

use std::time::{Duration, Instant};

use diesel::prelude::{ExpressionMethods as _, QueryDsl as _};
use diesel::sql_types::Text;
use diesel_async::{AsyncConnection as _, RunQueryDsl, SimpleAsyncConnection as _};
use querywatch::{FindingKind, Scope, Watch};

use crate::fixture::{items, postgres, shape};

#[tokio::test]
async fn statements_have_shapes_and_values_are_not_stored() {
    let watch = Watch::builder().build();
    let mut conn = postgres(&watch).await;
    let row = (items::id.eq(77), items::name.eq("secret"));
    RunQueryDsl::execute(diesel::insert_into(items::table).values(row), &mut conn).await.unwrap();
    let sql = "SELECT name FROM items WHERE name IN ('secret', $1)";
    RunQueryDsl::execute(diesel::sql_query(sql).bind::<Text, _>("secret"), &mut conn).await.unwrap();
    assert_eq!(shape(&watch, "INSERT").sql, "INSERT INTO \"items\" (\"id\", \"name\") VALUES (?, ?)");
    assert_eq!(shape(&watch, "SELECT").sql, "SELECT name FROM items WHERE name IN (?)");
    let everything = serde_json::to_string(&watch.shapes()).unwrap();
    assert!(!everything.contains("secret"), "{everything}");
}

#[tokio::test]
async fn transactions_failures_and_batches_are_counted() {
    let watch = Watch::builder().build();
    let mut conn = postgres(&watch).await;
    let scope = Scope::new(&watch, "GET /").run(async {
        let failed = conn
            .transaction::<_, diesel::result::Error, _>(async |conn| {
                RunQueryDsl::execute(diesel::delete(items::table.find(1)), conn).await?;
                RunQueryDsl::execute(diesel::sql_query("SELECT 1 / 0"), conn).await
            })
            .await;
        failed.unwrap_err();
        conn.batch_execute("SELECT 1; SELECT 2").await.unwrap();
    });
    let (_, report) = scope.await;
    let mut statements: Vec<String> = report.shapes().into_iter().map(|shape| shape.sql).collect();
    statements.sort();
    assert_eq!(
        statements,
        [
            "BEGIN",
            "DELETE FROM \"items\" WHERE (\"items\".\"id\" = ?)",
            "ROLLBACK",
            "SELECT ? / ?",
            "SELECT ?; SELECT ?"
        ]
    );
    assert_eq!((report.statements, report.findings.len()), (5, 0));
    assert_eq!(shape(&watch, "SELECT ? /").since_start.errors, 1);
    assert_eq!(watch.totals().since_start.errors, 1);
}

#[tokio::test]
async fn n_plus_one_has_source_lines() {
    let watch = Watch::builder().capture_locations(true).build();
    let mut conn = postgres(&watch).await;
    let (_, report) = Scope::new(&watch, "GET /").run(n_plus_one(&mut conn)).await;
    let finding = &report.findings[0];
    assert_eq!((finding.kind, finding.calls), (FindingKind::NPlusOne, 9));
    for place in [&finding.first_call, &finding.last_call] {
        assert!(place.as_deref().unwrap().contains("postgres.rs"), "{finding:?}");
    }
}

async fn n_plus_one(conn: &mut diesel_async::AsyncPgConnection) {
    for id in 0..9 {
        RunQueryDsl::load::<(i32, String)>(items::table.filter(items::id.eq(id)), conn).await.unwrap();
    }
}

#[tokio::test]
async fn durations_of_pipelined_statements_exclude_the_wait() {
    let watch = Watch::builder().build();
    let conn = postgres(&watch).await;
    let sleep = diesel::sql_query("SELECT pg_sleep(0.2)");
    let (mut one, mut other, mut third) = (&conn, &conn, &conn);
    let began = Instant::now();
    let scope = Scope::new(&watch, "GET /").run(async {
        let quick = diesel::sql_query("SELECT 1 AS one");
        let all = futures_util::future::join3(
            RunQueryDsl::execute(sleep, &mut one),
            RunQueryDsl::execute(quick, &mut other),
            RunQueryDsl::execute(diesel::sql_query("SELECT 2 AS two"), &mut third),
        );
        all.await
    });
    let ((slept, one, two), report) = scope.await;
    slept.and(one).and(two).unwrap();
    assert_eq!(report.statements, 3);
    assert!(shape(&watch, "SELECT pg_sleep").since_start.max_us >= 200_000);
    // If each duration included the wait for the first statement, the sum would exceed the elapsed time.
    assert!(report.db_time >= Duration::from_millis(200) && report.db_time <= began.elapsed(), "{report:?}");
}

#[tokio::test]
async fn a_dropped_statement_affects_no_later_one() {
    let watch = Watch::builder().build();
    let mut conn = postgres(&watch).await;
    // Created and never polled.
    drop(RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut conn));
    let other = postgres(&watch).await;
    RunQueryDsl::execute(diesel::sql_query("SELECT pg_sleep(0.2)"), &mut &other).await.unwrap();
    let began = Instant::now();
    RunQueryDsl::execute(diesel::sql_query("SELECT 'later' AS later"), &mut conn).await.unwrap();
    assert!(u128::from(shape(&watch, "SELECT ? AS later").since_start.max_us) <= began.elapsed().as_micros());
}
