use serde_json::json;

use crate::harness::TestApp;

crate::on_both!(
    the_process_is_healthy,
    it_is_ready_when_the_database_answers,
    it_is_not_ready_while_it_stops,
    redis_down_is_degraded_but_ready("--redis-url", "redis://127.0.0.1:1"),
);

async fn the_process_is_healthy(app: &TestApp) {
    for path in ["/health", "/api/health"] {
        let expected = json!({"status": "healthy", "version": env!("CARGO_PKG_VERSION")});
        assert_eq!(app.get(path).await.ok().body, expected);
    }
    for path in ["/live", "/api/health/live", "/ready"] {
        app.get(path).await.ok();
    }
}

async fn it_is_ready_when_the_database_answers(app: &TestApp) {
    let body = app.get("/api/health/ready").await.ok().body;
    assert_eq!(body["status"], "ready");
    assert_eq!(body["checks"]["database"]["status"], "ok");
    assert!(body["checks"]["database"]["latency_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(body["checks"]["migrations"], json!({"status": "ok"}));
    let cache = if app.app.operations.backend() == "sqlite" { "disabled" } else { "ok" };
    assert_eq!(body["checks"]["cache"]["status"], cache);
}

async fn it_is_not_ready_while_it_stops(app: &TestApp) {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;
    let router = tutord::router::router(&app.app, axum::Router::new());
    app.app.background.shutdown.cancel();
    let request = Request::get("/api/health/ready").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(router.oneshot(request).await.unwrap().status(), 503);
}

async fn redis_down_is_degraded_but_ready(app: &TestApp) {
    let body = app.get("/api/health/ready").await.ok().body;
    assert_eq!((&body["status"], &body["checks"]["cache"]["status"]), (&json!("ready"), &json!("degraded")));
    assert_eq!(body["checks"]["cache"]["cause"], "unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_up_is_ok() {
    let redis = testbed::Redis::start().await.unwrap();
    let app = TestApp::sqlite(&["--redis-url", &redis.url()]).await;
    app.app.cache.until_connected().await;
    assert_eq!(app.get("/api/health/ready").await.ok().body["checks"]["cache"]["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_does_not_fit_is_not_ready() {
    for (sql, status) in [
        ("UPDATE metadata SET value = '98.7.6' WHERE key = 'oldest_version'", "incompatible"),
        ("DELETE FROM __diesel_schema_migrations WHERE version LIKE '0004%'", "pending"),
    ] {
        let app = TestApp::sqlite(&[]).await;
        crate::process::execute(&app.app.config.database.url(), sql).await;
        let body = app.get("/api/health/ready").await.has(503).body;
        assert_eq!(body["checks"]["migrations"]["status"], status, "{body}");
        assert_eq!(body["checks"]["database"]["status"], "ok", "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_not_ready_and_fails_no_request_with_500() {
    let app = TestApp::postgres(&[]).await;
    let student = app.student("ada").await;
    let url = app.app.config.database.url();
    let name = url.rsplit('/').next().unwrap();
    let refuse = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    crate::process::execute(&url, &refuse).await;
    // Connections from before do not know.
    crate::process::execute(
        &url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
         AND pid <> pg_backend_pid()",
    )
    .await;
    let body = app.get("/api/health/ready").await.has(503).body;
    assert_eq!(body["checks"]["database"]["cause"], "read_only", "{body}");
    let refused = student.post("/api/chat/conversations", json!({})).await;
    refused.fails(503, "OVERLOADED");
    assert_eq!(refused.headers["retry-after"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_named() {
    let postgres = testbed::Postgres::start(false).await.unwrap();
    let url = postgres.empty_database().await.unwrap();
    let app = TestApp::sqlite(&["--database-url", &url]).await;
    let student = app.student("ada").await;
    drop(postgres);
    let body = app.get("/api/health/ready").await.has(503).body;
    assert_eq!((&body["status"], &body["checks"]["database"]["status"]), (&json!("not_ready"), &json!("error")));
    let refused = student.get("/api/users/me").await;
    refused.fails(503, "OVERLOADED");
    assert_eq!(refused.headers["retry-after"], "1");
    app.get("/api/health/live").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_named_before_its_statements_time_out() {
    let mut postgres = testbed::Postgres::start(false).await.unwrap();
    let url = postgres.empty_database().await.unwrap();
    // Longer than the test takes: it is readiness that gives up.
    let app = TestApp::sqlite(&["--database-url", &url, "--database-statement-timeout-ms", "600000"]).await;
    app.get("/api/health/ready").await.ok();
    postgres.pause().unwrap();
    let body = loop {
        let answer = app.get("/api/health/ready").await;
        // The answer of a second ago is shared.
        if answer.status != 200 {
            break answer.has(503).body;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(body["checks"]["database"]["status"], "error", "{body}");
    app.get("/api/health/live").await.ok();
    postgres.resume().unwrap();
    while app.get("/api/health/ready").await.status != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_is_told_what_happened() {
    let app = TestApp::sqlite(&[]).await;
    let ada = app.student("ada").await;
    ada.talk("hello").await;
    for _ in 0..2 {
        ada.get("/api/users/me").await.ok();
    }
    app.get("/no/such/path").await.fails(404, "NOT_FOUND");
    let answer = app.get("/metrics").await.ok();
    let text = answer.body.as_str().unwrap();
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
