//! What operators are told of the database's replicas.

use tutord_core::model::Role;

use crate::dashboard::{admin, shows};
use crate::harness::TestApp;

/// The value of a metric of the replica `near`; `None` where it is left out.
async fn metric(app: &TestApp, name: &str) -> Option<f64> {
    let answer = app.get("/metrics").await.ok();
    let series = format!("{name}{{replica=\"near\"}} ");
    answer.body.as_str().unwrap().lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

/// Looks until the replica's log is as expected, which no one tells; the runner ends a test that waits for ever.
async fn until_bytes(app: &TestApp, expected: impl Fn(f64) -> bool) {
    while !metric(app, "tutord_db_replica_lag_bytes").await.is_some_and(&expected) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_is_told_and_shown() {
    let (app, [primary, replica]) = TestApp::replicated(&[]).await;
    let answer = app.get("/metrics").await.ok();
    assert!(answer.body.as_str().unwrap().contains("\ntutord_db_replicas 1\n"), "{}", answer.body);
    assert_eq!(answer.statements(), 1);
    shows(&admin(&app).await.get("/ops/replicas").await.ok(), &["near", "127.0.0.1", "streaming"]);

    until_bytes(&app, |bytes| bytes == 0.0).await;
    let reader = replica.client("postgres").await.unwrap();
    reader.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    app.student("ada").await;
    until_bytes(&app, |bytes| bytes > 0.0).await;
    while metric(&app, "tutord_db_replica_lag_seconds").await.is_none_or(|seconds| seconds == 0.0) {}
    reader.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    until_bytes(&app, |bytes| bytes == 0.0).await;

    drop(primary);
    // An answer may be a second old.
    while metric(&app, "tutord_db_replica_lag_bytes").await.is_some() {}
    let answer = app.get("/metrics").await.ok();
    assert!(!answer.body.as_str().unwrap().contains("tutord_db_replica"), "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_seen_is_not_told_as_zero() {
    let (first, [primary, _replica]) = TestApp::replicated(&[]).await;
    let url = first.app.config.database.url();
    let superuser = primary.client(url.rsplit('/').next().unwrap()).await.unwrap();
    let plain = "CREATE ROLE plain LOGIN; GRANT pg_read_all_data, pg_write_all_data TO plain; GRANT ALL ON SCHEMA public TO plain";
    superuser.batch_execute(plain).await.unwrap();
    let app = TestApp::sqlite(&["--database-url", &url.replace("postgres@", "plain@")]).await;
    let admin = first.user("grace", Role::Admin, true).await;
    let told = app.get("/metrics").await.ok();
    assert!(!told.body.as_str().unwrap().contains("tutord_db_replica"), "{}", told.body);
    shows(&admin.at(&app).get("/ops/replicas").await.ok(), &["near", "hidden", "GRANT pg_read_all_stats TO"]);
    superuser.batch_execute("GRANT pg_read_all_stats TO plain").await.unwrap();
    // An answer may be a second old.
    while metric(&app, "tutord_db_replica_lag_bytes").await.is_none() {}
}

/// Were it not bounded, the answer would come after ten minutes.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_do_not_wait_for_a_connection_for_long() {
    let all_wait = ["--database-acquire-timeout-ms", "600000", "--database-statement-timeout-ms", "600000"];
    let one = ["--database-pool-size", "1", "--database-max-overflow", "0"];
    let (app, [primary, _replica]) = TestApp::replicated(&[all_wait, one].concat()).await;
    let url = app.app.config.database.url();
    let blocker = primary.client(url.rsplit('/').next().unwrap()).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waiting = tokio::spawn({
        let store = app.app.store.clone();
        async move { store.user(1).await }
    });
    let in_use = || {
        let pool = app.app.operations.pool();
        pool.open - pool.idle
    };
    while in_use() == 0 {
        tokio::task::yield_now().await;
    }
    let answer = app.get("/metrics").await.ok();
    let text = answer.body.as_str().unwrap();
    assert!(
        text.contains(r#"tutord_db_connections{state="in_use"} 1"#) && !text.contains("tutord_db_replica"),
        "{text}"
    );
    blocker.batch_execute("COMMIT").await.unwrap();
    waiting.await.unwrap().unwrap();
}
