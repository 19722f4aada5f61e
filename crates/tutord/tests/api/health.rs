use serde_json::json;

use crate::support::TestApp;

crate::on_both!(
    a_running_server_is_healthy,
    a_server_with_a_database_is_ready,
    a_server_that_shuts_down_is_not_ready,
    a_server_without_its_redis_is_degraded_but_ready(redis_url("redis://127.0.0.1:1")),
);

async fn a_running_server_is_healthy(app: &TestApp) {
    for path in ["/health", "/api/health"] {
        let expected = json!({"status": "healthy", "version": env!("CARGO_PKG_VERSION")});
        assert_eq!(app.get(path).await.assert_ok().body, expected);
    }
    for path in ["/live", "/api/health/live", "/ready"] {
        app.get(path).await.assert_ok();
    }
}

async fn a_server_with_a_database_is_ready(app: &TestApp) {
    let body = app.get("/api/health/ready").await.assert_ok().body;
    assert_eq!(body["status"], "ready");
    assert_eq!(body["checks"]["database"]["status"], "ok");
    assert!(body["checks"]["database"]["latency_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(body["checks"]["migrations"], json!({"status": "ok"}));
    let cache = if app.is_sqlite() { "disabled" } else { "ok" };
    assert_eq!(body["checks"]["cache"]["status"], cache);
}

async fn a_server_that_shuts_down_is_not_ready(app: &TestApp) {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;
    let router = app.router();
    app.shut_down();
    let request = Request::get("/api/health/ready").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), 503);
}

async fn a_server_without_its_redis_is_degraded_but_ready(app: &TestApp) {
    let body = app.get("/api/health/ready").await.assert_ok().body;
    assert_eq!((&body["status"], &body["checks"]["cache"]["status"]), (&json!("ready"), &json!("degraded")));
    assert_eq!(body["checks"]["cache"]["cause"], "unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_its_redis_is_ok() {
    let redis = testbed::Redis::start().await.unwrap();
    let app = TestApp::sqlite().redis(&redis).start().await;
    assert_eq!(app.get("/api/health/ready").await.assert_ok().body["checks"]["cache"]["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_schema_is_not_ready() {
    for (sql, status) in [
        ("UPDATE metadata SET value = '98.7.6' WHERE key = 'oldest_version'", "incompatible"),
        ("DELETE FROM __diesel_schema_migrations WHERE version LIKE '0004%'", "pending"),
    ] {
        let app = TestApp::sqlite().start().await;
        app.execute_sql(sql).await;
        let body = app.get("/api/health/ready").await.assert_status(503).body;
        assert_eq!(body["checks"]["migrations"]["status"], status, "{body}");
        assert_eq!(body["checks"]["database"]["status"], "ok", "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_read_only_database_is_not_ready_and_sheds_writes() {
    let app = TestApp::postgres().start().await;
    let student = app.student("ada").await;
    let name = app.database_name();
    app.execute_sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    // Existing connections keep their setting.
    app.execute_sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
         AND pid <> pg_backend_pid()",
    )
    .await;
    let body = app.get("/api/health/ready").await.assert_status(503).body;
    assert_eq!(body["checks"]["database"]["cause"], "read_only", "{body}");
    let rejected = student.post("/api/chat/conversations", json!({})).await;
    rejected.assert_error(503, "OVERLOADED");
    assert_eq!(rejected.headers["retry-after"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_its_database_is_not_ready() {
    let postgres = testbed::Postgres::start(false).await.unwrap();
    let url = postgres.empty_database().await.unwrap();
    let app = TestApp::on_database(&url).start().await;
    let student = app.student("ada").await;
    drop(postgres);
    let body = app.get("/api/health/ready").await.assert_status(503).body;
    assert_eq!((&body["status"], &body["checks"]["database"]["status"]), (&json!("not_ready"), &json!("error")));
    let rejected = student.get("/api/users/me").await;
    rejected.assert_error(503, "OVERLOADED");
    assert_eq!(rejected.headers["retry-after"], "1");
    app.get("/api/health/live").await.assert_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_database_hangs_is_not_ready_before_its_statements_time_out() {
    let mut postgres = testbed::Postgres::start(false).await.unwrap();
    let url = postgres.empty_database().await.unwrap();
    // The timeout of a statement is longer than the test.
    let app = TestApp::on_database(&url).statement_timeout_ms(600_000).start().await;
    app.get("/api/health/ready").await.assert_ok();
    postgres.pause().unwrap();
    let body = loop {
        let response = app.get("/api/health/ready").await;
        // The response may be a second old.
        if response.status != 200 {
            break response.assert_status(503).body;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(body["checks"]["database"]["status"], "error", "{body}");
    app.get("/api/health/live").await.assert_ok();
    postgres.resume().unwrap();
    while app.get("/api/health/ready").await.status != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_count_requests_and_statements() {
    let app = TestApp::sqlite().start().await;
    let ada = app.student("ada").await;
    ada.start_conversation("hello").await;
    for _ in 0..2 {
        ada.get("/api/users/me").await.assert_ok();
    }
    app.get("/no/such/path").await.assert_error(404, "NOT_FOUND");
    let response = app.get("/metrics").await.assert_ok();
    let text = response.text();
    for line in [
        r#"tutord_http_requests_total{route="GET /api/users/me",status="200"} 2"#,
        r#"tutord_http_requests_total{route="unmatched",status="404"} 1"#,
        r#"tutord_http_request_duration_seconds_count{route="GET /api/users/me"} 2"#,
        r#"tutord_llm_requests_total{outcome="answered"} 1"#,
        r#"tutord_db_connections{state="max"}"#,
        "tutord_query_findings_total 0",
        r#"tutord_cache_reads_total{namespace="user:profile",result="miss"}"#,
        r#"tutord_statements_total{group="insert"}"#,
        "# EOF",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
