//! Metrics and dashboard of the database's replicas.

use crate::support::database::ReplicatedPostgres;
use crate::support::{TestApp, database};

/// Returns the value of a metric of the replica `near`, or `None` without one.
async fn metric(app: &TestApp, name: &str) -> Option<f64> {
    let response = app.get("/metrics").await.assert_ok();
    let series = format!("{name}{{replica=\"near\"}} ");
    response.text().lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

/// Reads the metrics until the lag is as expected; the runner ends a test that waits forever.
async fn until_bytes(app: &TestApp, expected: impl Fn(f64) -> bool) {
    while !metric(app, "tutord_db_replica_lag_bytes").await.is_some_and(&expected) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_follow_the_lag_of_a_replica() {
    let ReplicatedPostgres { primary, replica, url } = ReplicatedPostgres::start().await;
    let app = TestApp::on_database(&url).start().await;
    let metrics = app.get("/metrics").await.assert_ok();
    assert!(metrics.text().contains("\ntutord_db_replicas 1\n"), "{}", metrics.body);
    assert_eq!(metrics.statement_count(), 1);
    let page = app.admin("grace").await.get("/ops/replicas").await.assert_ok();
    page.assert_page_contains(&["near", "127.0.0.1", "streaming"]);

    until_bytes(&app, |bytes| bytes == 0.0).await;
    let reader = replica.client("postgres").await.unwrap();
    reader.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    app.student("ada").await;
    until_bytes(&app, |bytes| bytes > 0.0).await;
    while metric(&app, "tutord_db_replica_lag_seconds").await.is_none_or(|seconds| seconds == 0.0) {}
    reader.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    until_bytes(&app, |bytes| bytes == 0.0).await;

    drop(primary);
    // The response may be a second old.
    while metric(&app, "tutord_db_replica_lag_bytes").await.is_some() {}
    let metrics = app.get("/metrics").await.assert_ok();
    assert!(!metrics.text().contains("tutord_db_replica"), "{}", metrics.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lag_that_the_role_may_not_read_is_not_reported_as_zero() {
    let ReplicatedPostgres { primary, url, replica: _replica } = ReplicatedPostgres::start().await;
    let first = TestApp::on_database(&url).start().await;
    let superuser = primary.client(database::name(&url)).await.unwrap();
    let plain = "CREATE ROLE plain LOGIN; GRANT pg_read_all_data, pg_write_all_data TO plain; GRANT ALL ON SCHEMA public TO plain";
    superuser.batch_execute(plain).await.unwrap();
    let app = TestApp::on_database(&url.replace("postgres@", "plain@")).start().await;
    let admin = first.admin("grace").await;
    let metrics = app.get("/metrics").await.assert_ok();
    assert!(!metrics.text().contains("tutord_db_replica"), "{}", metrics.body);
    let page = admin.on_node(&app).get("/ops/replicas").await.assert_ok();
    page.assert_page_contains(&["near", "hidden", "GRANT pg_read_all_stats TO"]);
    superuser.batch_execute("GRANT pg_read_all_stats TO plain").await.unwrap();
    // The response may be a second old.
    while metric(&app, "tutord_db_replica_lag_bytes").await.is_none() {}
}

/// An unbounded wait would take ten minutes.
#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_limit_their_wait_for_a_connection() {
    let ReplicatedPostgres { primary, url, replica: _replica } = ReplicatedPostgres::start().await;
    let app = TestApp::on_database(&url)
        .acquire_timeout_ms(600_000)
        .statement_timeout_ms(600_000)
        .pool_size(1)
        .max_overflow(0)
        .start()
        .await;
    let user_id = app.student("ada").await.user_id;
    let blocker = primary.client(database::name(&url)).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waiting = tokio::spawn({
        let store = app.store().clone();
        async move { store.user(user_id).await }
    });
    let in_use = || {
        let pool = app.operations().pool();
        pool.open - pool.idle
    };
    while in_use() == 0 {
        tokio::task::yield_now().await;
    }
    let metrics = app.get("/metrics").await.assert_ok();
    let text = metrics.text();
    assert!(
        text.contains(r#"tutord_db_connections{state="in_use"} 1"#) && !text.contains("tutord_db_replica"),
        "{text}"
    );
    blocker.batch_execute("COMMIT").await.unwrap();
    waiting.await.unwrap().unwrap();
}
