//! `/api/admin/queries`, and the plans of slow statements.

use diesel::{Connection as _, SqliteConnection};
use querywatch::SlowStatement;
use serde_json::Value;
use testbed::Postgres;
use tutord_store::model::Role;

use crate::harness::{Client, TestApp};

/// Far above what any other statement of these tests takes, so that the queue is not full of them.
const THRESHOLD: &str = "50";

crate::on_both!(only_admins_see_the_statements, the_statements_come_in_the_order_that_is_asked_for);

async fn only_admins_see_the_statements(app: &TestApp) {
    let ada = app.student("ada").await;
    ada.get("/api/admin/queries").await.fails(403, "FORBIDDEN");
    let admin = app.user("root", Role::Admin, true).await;
    admin.get("/api/admin/queries").await.ok();
}

async fn the_statements_come_in_the_order_that_is_asked_for(app: &TestApp) {
    let admin = app.user("root", Role::Admin, true).await;
    for _ in 0..3 {
        admin.talk("hello").await;
    }
    let body = admin.get("/api/admin/queries").await.ok().body;
    assert!(body["totals"]["since_start"]["calls"].as_u64().unwrap() > 10, "{body:#}");
    for list in ["slow", "findings"] {
        assert!(body[list].is_array(), "{body:#}");
    }
    let shapes = async |query: &str| {
        let body = admin.get(&format!("/api/admin/queries?{query}")).await.ok().body;
        body["shapes"].as_array().unwrap().clone()
    };
    for (sort, field) in [("total", "total_us"), ("calls", "calls"), ("p99", "p99_us")] {
        let shapes = shapes(&format!("sort={sort}&limit=5")).await;
        assert_eq!(shapes.len(), 5);
        let values: Vec<u64> = shapes.iter().map(|shape| shape["window"][field].as_u64().unwrap()).collect();
        assert!(values.is_sorted_by(|first, second| first >= second), "{sort}: {values:?}");
        for shape in shapes {
            assert!(shape["sql"].is_string() && shape["routes"].is_array() && shape["plan"].is_null(), "{shape:#}");
        }
    }
    assert!(shapes("").await.len() > 5);
}

/// What an admin is shown of a shape.
async fn shown(admin: &Client<'_>, id: &str) -> Value {
    let body = admin.get("/api/admin/queries?sort=p99&limit=100").await.ok().body;
    assert!(body["slow"].as_array().unwrap().iter().any(|slow| slow["shape"] == id), "{body:#}");
    body["shapes"].as_array().unwrap().iter().find(|shape| shape["id"] == id).unwrap().clone()
}

fn slow(app: &TestApp, part: &str) -> SlowStatement {
    app.app.watch.slow().into_iter().find(|slow| slow.sql.contains(part)).expect("a slow statement")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_on_postgres_is_planned() {
    let app = TestApp::postgres(&["--slow-query-threshold-ms", THRESHOLD, "--cache-enabled", "false"]).await;
    let admin = app.user("root", Role::Admin, true).await;
    let url = app.app.config.database.url();
    let blocker = Postgres::shared().await.unwrap().client(url.rsplit('/').next().unwrap()).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let release = async {
        let waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND database = \
                       (SELECT oid FROM pg_database WHERE datname = current_database()))";
        while !blocker.query_one(waiting, &[]).await.unwrap().get::<_, bool>(0) {}
        // What waits is slow from now on, whatever the machine does.
        blocker.batch_execute("SELECT pg_sleep(0.06); COMMIT").await.unwrap();
    };
    let (list, ()) = tokio::join!(admin.get("/api/chat/conversations"), release);
    list.ok();
    let slow = slow(&app, r#""conversations""#);
    let plan = app.app.plans.until_known(&slow.shape).await;
    assert!(plan.text.contains("conversations") && plan.text.contains("user_id = $1"), "{}", plan.text);
    let shape = shown(&admin, &slow.shape).await;
    assert_eq!(shape["plan"]["text"], plan.text);
    assert!(shape["plan"]["hints"].is_array());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_on_sqlite_is_planned() {
    let app = TestApp::sqlite(&["--slow-query-threshold-ms", THRESHOLD]).await;
    let admin = app.user("root", Role::Admin, true).await;
    let mut conn = SqliteConnection::establish(":memory:").unwrap();
    conn.set_instrumentation(app.app.watch.instrumentation());
    // Counts rows that are made on the way: the store's own tables are too small to be slow.
    let sql =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT count(*) FROM n";
    diesel::RunQueryDsl::execute(diesel::sql_query(sql), &mut conn).unwrap();
    let slow = slow(&app, "WITH RECURSIVE");
    let plan = app.app.plans.until_known(&slow.shape).await;
    assert!(plan.text.contains("SCAN n") && !plan.hints.is_empty(), "{plan:?}");
    let shape = shown(&admin, &slow.shape).await;
    assert_eq!(
        (&shape["plan"]["text"], &shape["plan"]["hints"][0]),
        (&plan.text.into(), &plan.hints[0].clone().into())
    );
}
