//! `/api/admin/queries`, and the plans of slow statements.

use std::collections::HashSet;

use diesel::{Connection as _, SqliteConnection};
use querywatch::SlowStatement;
use reqwest::Method;
use serde_json::Value;
use testbed::Postgres;
use tutord_core::model::Role;

use crate::harness::{Client, TestApp, answer};

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

#[tokio::test(flavor = "multi_thread")]
async fn statements_name_their_request_to_the_server() {
    let app = TestApp::postgres(&["--sql-comments", "true", "--cache-enabled", "false"]).await;
    let ada = app.student("ada").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let url = app.app.config.database.url();
    let server = Postgres::shared().await.unwrap();
    let database = url.rsplit('/').next().unwrap();
    let blocker = server.client(database).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE").await.unwrap();
    // Within the transaction of the other the activity would be as of its first look.
    let observer = server.client(database).await.unwrap();
    let seen = async {
        // Not what looks for deleted conversations in the background, which waits too.
        let waiting = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' \
                       AND query LIKE '%\"conversations\".\"user_id\" = %'";
        let query: String = loop {
            if let Some(row) = observer.query_opt(waiting, &[]).await.unwrap() {
                break row.get(0);
            }
        };
        blocker.batch_execute("COMMIT").await.unwrap();
        query
    };
    let list = app.request(Method::GET, "/api/chat/conversations").bearer_auth(&ada.token);
    let list = answer(list.header("x-request-id", "abc-1").header("traceparent", trace));
    let (list, query) = tokio::join!(list, seen);
    list.ok();
    let comment = format!(" /*request_id='abc-1',route='GET%20%2Fapi%2Fchat%2Fconversations',traceparent='{trace}'*/");
    assert!(query.ends_with(&comment), "{query}");
    // Shapes are without comments: the same again has the same ones.
    let shapes = || {
        let of_route =
            |routes: &[querywatch::RouteCalls]| routes.iter().any(|route| route.route.ends_with("/conversations"));
        app.app
            .http
            .watch
            .shapes()
            .into_iter()
            .filter(|shape| of_route(&shape.routes))
            .map(|shape| shape.sql)
            .collect::<HashSet<_>>()
    };
    let before = shapes();
    assert!(before.len() >= 2 && before.iter().all(|sql| !sql.contains("/*")), "{before:?}");
    ada.get("/api/chat/conversations").await.ok();
    assert_eq!(shapes(), before);
    ada.talk("hello").await;
}

/// What an admin is shown of a shape.
async fn shown(admin: &Client<'_>, id: &str) -> Value {
    let body = admin.get("/api/admin/queries?sort=p99&limit=100").await.ok().body;
    assert!(body["slow"].as_array().unwrap().iter().any(|slow| slow["shape"] == id), "{body:#}");
    body["shapes"].as_array().unwrap().iter().find(|shape| shape["id"] == id).unwrap().clone()
}

fn slow(app: &TestApp, part: &str) -> SlowStatement {
    app.app.http.watch.slow().into_iter().find(|slow| slow.sql.contains(part)).expect("a slow statement")
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
    conn.set_instrumentation(app.app.http.watch.instrumentation());
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
