//! `/api/admin/queries`, and the plans of slow statements.

use std::collections::HashSet;

use diesel::{Connection as _, SqliteConnection};
use querywatch::SlowStatement;
use reqwest::Method;
use serde_json::Value;
use testbed::Postgres;

use crate::support::{TestApp, TestClient, fetch};

/// Far above the time of any other statement of these tests, so that those do not fill the queue.
const THRESHOLD_MS: u64 = 50;

/// A part of the statement that lists conversations. The purge of deleted conversations, which may wait for the same
/// lock, does not contain it.
const OF_LIST: &str = r#""conversations"."title""#;

crate::on_both!(the_statements_require_an_admin, the_statements_can_be_sorted);

async fn the_statements_require_an_admin(app: &TestApp) {
    let ada = app.student("ada").await;
    ada.get("/api/admin/queries").await.assert_error(403, "FORBIDDEN");
    let admin = app.admin("root").await;
    admin.get("/api/admin/queries").await.assert_ok();
}

async fn the_statements_can_be_sorted(app: &TestApp) {
    let admin = app.admin("root").await;
    for _ in 0..3 {
        admin.start_conversation("hello").await;
    }
    let body = admin.get("/api/admin/queries").await.assert_ok().body;
    assert!(body["totals"]["since_start"]["calls"].as_u64().unwrap() > 10, "{body:#}");
    for list in ["slow", "findings"] {
        assert!(body[list].is_array(), "{body:#}");
    }
    let shapes = async |query: &str| {
        let body = admin.get(&format!("/api/admin/queries?{query}")).await.assert_ok().body;
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
async fn a_statement_has_its_request_in_a_comment() {
    let app = TestApp::postgres().sql_comments().without_cache().start().await;
    let ada = app.student("ada").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let database = app.database_name();
    let blocker = Postgres::shared().await.unwrap().client(&database).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let seen = async {
        let query = until_list_waits(&database).await;
        blocker.batch_execute("COMMIT").await.unwrap();
        query
    };
    let list = app.request(Method::GET, "/api/chat/conversations").bearer_auth(&ada.token);
    let list = fetch(list.header("x-request-id", "abc-1").header("traceparent", trace));
    let (list, query) = tokio::join!(list, seen);
    list.assert_ok();
    let comment = format!(" /*request_id='abc-1',route='GET%20%2Fapi%2Fchat%2Fconversations',traceparent='{trace}'*/");
    assert!(query.ends_with(&comment), "{query}");
    // Shapes have no comments: a second request has the same shapes.
    let shapes = || {
        let of_route =
            |routes: &[querywatch::RouteCalls]| routes.iter().any(|route| route.route.ends_with("/conversations"));
        app.watch()
            .shapes()
            .into_iter()
            .filter(|shape| of_route(&shape.routes))
            .map(|shape| shape.sql)
            .collect::<HashSet<_>>()
    };
    let before = shapes();
    assert!(before.len() >= 2 && before.iter().all(|sql| !sql.contains("/*")), "{before:?}");
    ada.get("/api/chat/conversations").await.assert_ok();
    assert_eq!(shapes(), before);
    ada.start_conversation("hello").await;
}

/// Waits until the list of conversations waits for a lock, and returns its statement.
///
/// It polls on a connection of its own: within a transaction the view shows the activity as of the first query.
async fn until_list_waits(database: &str) -> String {
    let observer = Postgres::shared().await.unwrap().client(database).await.unwrap();
    let waiting = format!(
        "SELECT query FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%{OF_LIST}%'"
    );
    loop {
        if let Some(row) = observer.query_opt(&waiting, &[]).await.unwrap() {
            return row.get(0);
        }
    }
}

/// Returns the entry of a shape in the admin's list.
async fn listed_shape(admin: &TestClient<'_>, id: &str) -> Value {
    let body = admin.get("/api/admin/queries?sort=p99&limit=100").await.assert_ok().body;
    assert!(body["slow"].as_array().unwrap().iter().any(|slow| slow["shape"] == id), "{body:#}");
    body["shapes"].as_array().unwrap().iter().find(|shape| shape["id"] == id).unwrap().clone()
}

fn find_slow(app: &TestApp, part: &str) -> SlowStatement {
    let slow = app.watch().slow_statements();
    slow.iter()
        .find(|slow| slow.sql.contains(part))
        .cloned()
        .unwrap_or_else(|| panic!("no slow statement has {part}: {slow:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_on_postgres_has_a_plan() {
    let app = TestApp::postgres().slow_query_threshold_ms(THRESHOLD_MS).without_cache().start().await;
    let admin = app.admin("root").await;
    let database = app.database_name();
    let blocker = Postgres::shared().await.unwrap().client(&database).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let release = async {
        until_list_waits(&database).await;
        // After this sleep the waiting statement exceeds the threshold on any machine.
        blocker.batch_execute("SELECT pg_sleep(0.06); COMMIT").await.unwrap();
    };
    let (list, ()) = tokio::join!(admin.get("/api/chat/conversations"), release);
    list.assert_ok();
    let slow = find_slow(&app, OF_LIST);
    let plan = app.plans().until_known(&slow.shape).await;
    assert!(plan.text.contains("conversations") && plan.text.contains("user_id = $1"), "{}", plan.text);
    let shape = listed_shape(&admin, &slow.shape).await;
    assert_eq!(shape["plan"]["text"], plan.text);
    assert!(shape["plan"]["hints"].is_array());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_on_sqlite_has_a_plan() {
    let app = TestApp::sqlite().slow_query_threshold_ms(THRESHOLD_MS).start().await;
    let admin = app.admin("root").await;
    let mut conn = SqliteConnection::establish(":memory:").unwrap();
    conn.set_instrumentation(app.watch().instrumentation());
    // Generates the rows that it counts: the tables of the store are too small for a slow statement.
    let sql =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) SELECT count(*) FROM n";
    diesel::RunQueryDsl::execute(diesel::sql_query(sql), &mut conn).unwrap();
    let slow = find_slow(&app, "WITH RECURSIVE");
    let plan = app.plans().until_known(&slow.shape).await;
    assert!(plan.text.contains("SCAN n") && !plan.hints.is_empty(), "{plan:?}");
    let shape = listed_shape(&admin, &slow.shape).await;
    assert_eq!(
        (&shape["plan"]["text"], &shape["plan"]["hints"][0]),
        (&plan.text.into(), &plan.hints[0].clone().into())
    );
}
