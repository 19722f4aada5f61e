//! Load shedding.

use std::sync::Arc;

use axum::http::StatusCode;
use testbed::Postgres;

use crate::support::{TestApp, fetch};

/// More requests than the pool has connections, and more than may be in flight without a queue.
const WAITING_REQUESTS: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn an_overloaded_server_sheds_requests_until_it_recovers() {
    let app = Arc::new(TestApp::postgres().load_shedding().acquire_timeout_ms(60_000).start().await);
    let token = app.student("ada").await.token;
    let list = async |app: &TestApp, token: &str| {
        let path = "/api/chat/conversations?limit=1";
        fetch(app.request(reqwest::Method::GET, path).bearer_auth(token)).await
    };
    list(&app, &token).await.assert_ok();
    let blocker = Postgres::shared().await.unwrap().client(&app.database_name()).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE conversations").await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..WAITING_REQUESTS {
        let (app, token) = (Arc::clone(&app), token.clone());
        // Each page size has its own cache entry.
        waiting.spawn(async move {
            let path = format!("/api/chat/conversations?limit={}", number % 100 + 1);
            fetch(app.request(reqwest::Method::GET, &path).bearer_auth(token)).await
        });
    }
    // The first rejection ends the loop; the runner ends a test that waits forever.
    let rejected = loop {
        let response = fetch(app.request(reqwest::Method::GET, "/api/users/me")).await;
        if response.status == StatusCode::SERVICE_UNAVAILABLE {
            break response;
        }
        response.assert_status(401);
    };
    rejected.assert_error(503, "OVERLOADED");
    assert!(rejected.headers.contains_key("retry-after"), "{:?}", rejected.headers);
    app.get("/api/health/live").await.assert_ok();
    assert!(app.shed_requests() > 0);
    blocker.batch_execute("COMMIT").await.unwrap();
    for response in waiting.join_all().await {
        // Some requests arrived after the limit had decreased.
        assert!([200, 503].contains(&response.status.as_u16()), "{response:?}");
    }
    while list(&app, &token).await.status != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}
