//! Waiting for the effects of background tasks.

use std::time::Duration;

/// Polls until `check` returns a value. For effects that no event announces: the rows of background tasks, files, and
/// clocks. The runner ends a test that waits forever.
pub(crate) async fn wait_for<T>(check: impl AsyncFn() -> Option<T>) -> T {
    loop {
        if let Some(value) = check().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Polls until a query returns this number.
pub(crate) async fn wait_for_count(app: &super::TestApp, sql: &str, expected: i64) {
    wait_for(async || (app.query_count(sql).await == expected).then_some(())).await;
}
