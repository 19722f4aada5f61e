//! What becomes of requests while the server is overloaded.

use std::sync::Arc;

use axum::http::StatusCode;
use testbed::Postgres;

use crate::harness::TestApp;

/// More than the connections of the pool, and than the requests in flight that count as no queue.
const WAITING: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_what_can_be_answered_are_refused_early_and_admitted_again_afterwards() {
    let app = Arc::new(TestApp::postgres(&["--load-shedding", "true", "--database-acquire-timeout-ms", "60000"]).await);
    let token = app.student("ada").await.token;
    let list = async |app: &TestApp, token: &str| {
        let path = "/api/chat/conversations?limit=1";
        crate::harness::answer(app.request(reqwest::Method::GET, path).bearer_auth(token)).await
    };
    list(&app, &token).await.ok();
    let url = app.app.config.database.url();
    let blocker = Postgres::shared().await.unwrap().client(url.rsplit('/').next().unwrap()).await.unwrap();
    blocker.batch_execute("BEGIN; LOCK TABLE conversations").await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..WAITING {
        let (app, token) = (Arc::clone(&app), token.clone());
        // Each page is another entry of the cache.
        waiting.spawn(async move {
            let path = format!("/api/chat/conversations?limit={}", number % 100 + 1);
            crate::harness::answer(app.request(reqwest::Method::GET, &path).bearer_auth(token)).await
        });
    }
    // A bound in time would not say more: the first one that is refused ends the loop.
    let refused = loop {
        let answer = crate::harness::answer(app.request(reqwest::Method::GET, "/api/users/me")).await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            break answer;
        }
        answer.has(401);
    };
    refused.fails(503, "OVERLOADED");
    assert!(refused.headers.contains_key("retry-after"), "{:?}", refused.headers);
    app.get("/api/health/live").await.ok();
    let shed = app.app.http.admission.shed().map(|(.., count)| count).sum::<u64>();
    assert!(shed > 0);
    blocker.batch_execute("COMMIT").await.unwrap();
    for answer in waiting.join_all().await {
        // Some came after the limit did.
        assert!([200, 503].contains(&answer.status.as_u16()), "{answer:?}");
    }
    while list(&app, &token).await.status != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}
