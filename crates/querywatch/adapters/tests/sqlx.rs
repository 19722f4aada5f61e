//! sqlx on SQLite, whose events come from a worker thread, and on PostgreSQL.

use std::sync::LazyLock;

use querywatch::Scope;
use querywatch_adapters::{SQLX_WATCH, TABLE, assert_n_plus_one};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{Connection, Executor, PgConnection, SqlitePool};
use testbed::Postgres;

const BY_ID: &str = "SELECT name FROM items WHERE id = $1";

async fn sqlite() -> SqlitePool {
    LazyLock::force(&SQLX_WATCH);
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    pool.execute(TABLE).await.unwrap();
    pool
}

async fn postgres() -> PgConnection {
    LazyLock::force(&SQLX_WATCH);
    let url = Postgres::shared().await.unwrap().empty_database().await.unwrap();
    let mut conn = PgConnection::connect(&url).await.unwrap();
    conn.execute(TABLE).await.unwrap();
    conn
}

#[tokio::test]
async fn n_plus_one_on_sqlite() {
    let pool = sqlite().await;
    let scope = Scope::new(&SQLX_WATCH, "GET /items").run(async {
        for id in 0..9 {
            sqlx::query(BY_ID).bind(id).fetch_optional(&pool).await.unwrap();
        }
    });
    let (_, report) = scope.await;
    assert_n_plus_one(&report, "SELECT name FROM items WHERE id = ?");
    assert_eq!((report.statements, report.unscoped), (9, 0));
}

#[tokio::test]
async fn n_plus_one_on_postgres() {
    let mut conn = postgres().await;
    let scope = Scope::new(&SQLX_WATCH, "GET /items").run(async {
        for id in 0..9 {
            sqlx::query(BY_ID).bind(id).fetch_optional(&mut conn).await.unwrap();
        }
    });
    assert_n_plus_one(&scope.await.1, "SELECT name FROM items WHERE id = ?");
}

#[tokio::test]
async fn a_budget_holds_and_rows_are_counted() {
    let (pool, mut conn) = (sqlite().await, postgres().await);
    let all = "SELECT id, name FROM items WHERE id > 0 ORDER BY id";
    let scope = Scope::new(&SQLX_WATCH, "GET /all").run(async {
        assert_eq!(sqlx::query(all).fetch_all(&pool).await.unwrap().len(), 3);
        assert_eq!(sqlx::query(all).fetch_all(&mut conn).await.unwrap().len(), 3);
    });
    let (_, report) = scope.await;
    report.assert_budget(2);
    assert!(!report.db_time.is_zero());
    let shape = SQLX_WATCH.shape(&report.shapes()[0].id).unwrap().shape;
    assert_eq!(
        (shape.sql.as_str(), shape.since_start.rows),
        ("SELECT id, name FROM items WHERE id > ? ORDER BY id", Some(6))
    );
    assert_eq!(shape.routes[0].route, "GET /all");
}

/// The summary is the whole text of a short statement.
#[tokio::test]
async fn a_short_statement_has_a_shape() {
    let pool = sqlite().await;
    let (_, report) = Scope::new(&SQLX_WATCH, "GET /").run(async { pool.execute("SELECT 4711").await.unwrap() }).await;
    assert_eq!(report.shapes()[0].sql, "SELECT ?");
}

/// A limit of the layer: sqlx reports no outcome.
#[tokio::test]
async fn failures_are_recorded_without_an_outcome() {
    let pool = sqlite().await;
    let insert = "INSERT INTO items (id, name) VALUES (1, 'duplicate')";
    let (failed, report) = Scope::new(&SQLX_WATCH, "POST /").run(async { pool.execute(insert).await.is_err() }).await;
    assert!(failed);
    report.assert_budget(1);
    let shape = SQLX_WATCH.shape(&report.shapes()[0].id).unwrap().shape;
    assert_eq!((shape.since_start.calls, shape.since_start.errors), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_scope_is_counted() {
    let pool = sqlite().await;
    let scope = Scope::new(&SQLX_WATCH, "GET /").run(async move {
        tokio::spawn(async move { sqlx::query(BY_ID).bind(1).fetch_optional(&pool).await.unwrap() }).await.unwrap();
    });
    let (_, report) = scope.await;
    assert_eq!(report.statements, 0);
    assert!(report.unscoped >= 1);
}
