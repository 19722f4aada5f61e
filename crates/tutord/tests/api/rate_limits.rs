use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use testbed::Redis;

use crate::support::fixtures::{PASSWORD, UNKNOWN_ID, WRONG_PASSWORD, log_in, register};
use crate::support::mailbox::{mailed_token, read_mail};
use crate::support::{TestApp, TestClient, TestResponse, fetch};

crate::on_both!(
    registrations_are_limited_by_address(rate_limits()),
    logins_are_limited_by_address(rate_limits().limit_logins("3/min")),
    failed_logins_are_limited_by_account(rate_limits().limit_login_failures("2/h")),
    strangers_do_not_lock_out_a_trusted_browser(
        rate_limits()
            .limit_logins("")
            .limit_login_failures("2/h")
            .limit_untrusted_login_failures("5/h")
            .trusted_proxies("127.0.0.1")
    ),
    a_password_reset_ends_the_trust_in_browsers(
        rate_limits()
            .limit_logins("")
            .limit_login_failures("2/h")
            .limit_untrusted_login_failures("5/h")
            .trusted_proxies("127.0.0.1")
    ),
    a_trusted_browser_has_its_own_limit(
        rate_limits().limit_login_failures("2/h").limit_untrusted_login_failures("3/h")
    ),
    concurrent_attempts_share_a_limit(rate_limits().limit_logins("").limit_login_failures("2/h")),
    an_ipv6_network_has_one_limit(rate_limits().limit_login_failures("2/h").trusted_proxies("127.0.0.1")),
    submissions_are_limited_by_user(rate_limits()),
    exports_are_limited_by_user(rate_limits()),
    oauth_requests_are_limited_by_address(rate_limits().limit_oauth("2/min")),
    mail_requests_are_limited_by_address(rate_limits()),
    password_resets_are_limited_by_address(rate_limits()),
    messages_are_limited_by_role(rate_limits().limit_chat("2/min").limit_chat_of_admins("3/min")),
    other_requests_are_limited_by_user_or_address(rate_limits().limit_other_requests("4/min")),
);

#[track_caller]
fn assert_limited(response: &TestResponse, limit: u32) {
    response.assert_error(429, "RATE_LIMIT_EXCEEDED");
    let header = |name: &str| response.headers[name].to_str().unwrap().parse::<u32>().unwrap();
    assert_eq!((header("x-ratelimit-limit"), header("x-ratelimit-remaining")), (limit, 0));
    assert!(header("retry-after") >= 1);
}

async fn registrations_are_limited_by_address(app: &TestApp) {
    for number in 0..5 {
        register(app, &format!("student{number}@example.com")).await.assert_status(201);
    }
    assert_limited(&register(app, "one.more@example.com").await, 5);
}

async fn logins_are_limited_by_address(app: &TestApp) {
    register(app, "ada@example.com").await.assert_status(201);
    for _ in 0..3 {
        log_in(app, "ada@example.com", PASSWORD).await.assert_ok();
    }
    assert_limited(&log_in(app, "ada@example.com", PASSWORD).await, 3);
}

async fn failed_logins_are_limited_by_account(app: &TestApp) {
    register(app, "ada@example.com").await.assert_status(201);
    for email in ["ada@example.com", "nobody@example.com"] {
        for _ in 0..2 {
            log_in(app, email, WRONG_PASSWORD).await.assert_error(401, "UNAUTHENTICATED");
        }
        // The right password does not help. An unknown account looks the same.
        assert_limited(&log_in(app, &email.to_uppercase(), PASSWORD).await, 2);
    }
}

/// Logs in from an address, with the device token of a browser.
async fn log_in_from(app: &TestApp, address: &str, device: Option<&str>, password: &str) -> TestResponse {
    let body = json!({"email": "ada@example.com", "password": password});
    let mut request = app.request(Method::POST, "/api/auth/login").header("x-forwarded-for", address).json(&body);
    if let Some(device) = device {
        request = request.header("cookie", format!("device_token={device}"));
    }
    fetch(request).await
}

/// Registers and logs in; returns the device token of the trusted browser.
async fn register_with_device(app: &TestApp) -> String {
    register(app, "ada@example.com").await.assert_status(201);
    log_in_from(app, "192.0.2.1", None, PASSWORD).await.assert_ok().cookie("device_token").unwrap()
}

/// Fails to log in from five addresses without a device token.
async fn fail_as_strangers(app: &TestApp) {
    for stranger in 0..5 {
        let address = format!("198.51.100.{stranger}");
        log_in_from(app, &address, None, WRONG_PASSWORD).await.assert_error(401, "UNAUTHENTICATED");
    }
}

async fn strangers_do_not_lock_out_a_trusted_browser(app: &TestApp) {
    let device = register_with_device(app).await;
    fail_as_strangers(app).await;
    assert_limited(&log_in_from(app, "203.0.113.1", None, PASSWORD).await, 5);
    // A browser with an unknown token is a stranger.
    assert_limited(&log_in_from(app, "203.0.113.2", Some(&"x".repeat(43)), PASSWORD).await, 5);
    assert_limited(&log_in_from(app, "203.0.113.2", Some("x"), PASSWORD).await, 5);
    let again = log_in_from(app, "203.0.113.3", Some(&device), PASSWORD).await.assert_ok();
    assert_eq!(again.cookie("device_token").as_ref(), Some(&device), "the trust is extended");
}

/// A new password ends the lockout and the trust in all browsers.
async fn a_password_reset_ends_the_trust_in_browsers(app: &TestApp) {
    let device = register_with_device(app).await;
    fail_as_strangers(app).await;
    assert_limited(&log_in_from(app, "203.0.113.1", None, PASSWORD).await, 5);
    app.post("/api/auth/password-reset", json!({"email": "ada@example.com"})).await.assert_ok();
    let reset = json!({"token": mailed_token(&read_mail(app, 2).await), "new_password": "Another-1-horse"});
    app.post("/api/auth/password-reset/confirm", reset).await.assert_ok();
    let new =
        log_in_from(app, "203.0.113.1", Some(&device), "Another-1-horse").await.assert_ok().cookie("device_token");
    assert_ne!(new.as_ref(), Some(&device));
    fail_as_strangers(app).await;
    assert_limited(&log_in_from(app, "203.0.113.1", Some(&device), "Another-1-horse").await, 5);
    log_in_from(app, "203.0.113.1", new.as_deref(), "Another-1-horse").await.assert_ok();
}

async fn a_trusted_browser_has_its_own_limit(app: &TestApp) {
    let device = register(app, "ada@example.com").await.assert_status(201).cookie("device_token").unwrap();
    for _ in 0..2 {
        log_in_from(app, "192.0.2.1", Some(&device), WRONG_PASSWORD).await.assert_error(401, "UNAUTHENTICATED");
    }
    assert_limited(&log_in_from(app, "192.0.2.1", Some(&device), PASSWORD).await, 2);
    // The failures count neither for the address nor for strangers.
    for _ in 0..2 {
        log_in_from(app, "192.0.2.1", None, WRONG_PASSWORD).await.assert_error(401, "UNAUTHENTICATED");
    }
    assert_limited(&log_in_from(app, "192.0.2.1", None, PASSWORD).await, 2);
}

async fn concurrent_attempts_share_a_limit(app: &TestApp) {
    register(app, "ada@example.com").await.assert_status(201);
    let attempts = (0..8).map(|_| log_in_from(app, "192.0.2.1", None, WRONG_PASSWORD));
    let responses = join_all(attempts).await;
    let checked = responses.iter().filter(|response| response.status == 401).count();
    assert_eq!(checked, 2, "the other responses do not disclose whether the password is right");
}

async fn an_ipv6_network_has_one_limit(app: &TestApp) {
    register(app, "ada@example.com").await.assert_status(201);
    for address in ["2001:db8::1", "2001:db8::ffff:2"] {
        log_in_from(app, address, None, WRONG_PASSWORD).await.assert_error(401, "UNAUTHENTICATED");
    }
    assert_limited(&log_in_from(app, "2001:db8::3", None, PASSWORD).await, 2);
    log_in_from(app, "2001:db8:0:1::1", None, PASSWORD).await.assert_ok();
}

async fn submissions_are_limited_by_user(app: &TestApp) {
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    let submit = async |client: &TestClient<'_>| client.submit_solution(UNKNOWN_ID, json!({"solution": "x"})).await;
    for _ in 0..10 {
        submit(&ada).await.assert_error(404, "NOT_FOUND");
    }
    assert_limited(&submit(&ada).await, 10);
    submit(&bob).await.assert_error(404, "NOT_FOUND");
}

async fn exports_are_limited_by_user(app: &TestApp) {
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    for _ in 0..10 {
        ada.get("/api/progress/export").await.assert_ok();
    }
    assert_limited(&ada.get("/api/progress/export").await, 10);
    bob.get("/api/progress/export").await.assert_ok();
}

async fn oauth_requests_are_limited_by_address(app: &TestApp) {
    for path in ["github", "google/callback"] {
        app.get(&format!("/api/auth/oauth/{path}")).await.assert_error(501, "NOT_IMPLEMENTED");
    }
    assert_limited(&app.get("/api/auth/oauth/google").await, 2);
    assert_limited(&app.post("/api/auth/oauth/exchange", json!({})).await, 2);
}

async fn mail_requests_are_limited_by_address(app: &TestApp) {
    for path in ["/api/auth/resend-verification", "/api/auth/password-reset"] {
        for _ in 0..3 {
            app.post(path, json!({"email": "ada@example.com"})).await.assert_ok();
        }
        assert_limited(&app.post(path, json!({"email": "ada@example.com"})).await, 3);
    }
}

async fn password_resets_are_limited_by_address(app: &TestApp) {
    let confirm = json!({"token": "x", "new_password": PASSWORD});
    for _ in 0..3 {
        app.post("/api/auth/password-reset/confirm", confirm.clone()).await.assert_invalid_field("token");
    }
    assert_limited(&app.post("/api/auth/password-reset/confirm", confirm).await, 3);
}

async fn messages_are_limited_by_role(app: &TestApp) {
    let (student, admin) = (app.student("ada").await, app.admin("root").await);
    for (client, limit) in [(student, 2), (admin, 3)] {
        for _ in 0..limit {
            client.send_message(json!({"message": "hi"})).await.assert_ok();
        }
        assert_limited(&client.send_message(json!({"message": "hi"})).await, limit);
        assert_limited(&client.post("/api/chat/stream", json!({"message": "hi"})).await, limit);
        assert_eq!(client.get("/api/chat/conversations").await.assert_ok().body["total"], limit, "nothing was stored");
    }
}

async fn other_requests_are_limited_by_user_or_address(app: &TestApp) {
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    for _ in 0..4 {
        ada.get("/api/users/me").await.assert_ok();
    }
    assert_limited(&ada.get("/api/users/me").await, 4);
    bob.get("/api/users/me").await.assert_ok();
    for _ in 0..4 {
        app.get("/api/users/me").await.assert_error(401, "UNAUTHENTICATED");
    }
    assert_limited(&app.get("/api/users/me").await, 4);
    app.get("/health").await.assert_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_their_counts() {
    let redis = Redis::start().await.unwrap();
    let options = TestApp::postgres().redis(&redis).rate_limits();
    let [first, second] = options.limit_logins("4/min").limit_login_failures("2/h").start_two().await;
    register(&first, "ada@example.com").await.assert_status(201);
    for node in [&first, &second] {
        log_in(node, "ada@example.com", WRONG_PASSWORD).await.assert_error(401, "UNAUTHENTICATED");
    }
    // The account has two failures on all nodes together, and the address four attempts.
    assert_limited(&log_in(&first, "ada@example.com", PASSWORD).await, 2);
    assert_limited(&log_in(&second, "Ada@example.com", PASSWORD).await, 2);
    assert_limited(&log_in(&second, "bob@example.com", PASSWORD).await, 4);
    assert_limited(&log_in(&first, "bob@example.com", PASSWORD).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_exchange_the_counts_of_other_requests() {
    let redis = Redis::start().await.unwrap();
    let options = TestApp::postgres().redis(&redis).rate_limits().limit_other_requests("100/min");
    let [first, second] = options.start_two().await;
    let ada = first.student("ada").await;
    let elsewhere = ada.on_node(&second);
    for _ in 0..100 {
        ada.get("/api/users/me").await.assert_ok();
    }
    assert_limited(&ada.get("/api/users/me").await, 100);
    let mut connection = first.cache().redis_connection().unwrap();
    let mut count = readthrough::redis::cmd("HGET");
    count.arg(connection.key(&format!("limit:other:user:{}", ada.user_id))).arg("60000:current");
    while count.query_async::<Option<u64>>(&mut connection).await.unwrap() < Some(100) {
        tokio::task::yield_now().await;
    }
    // The second node reads the count with its first request and rejects long before 100 requests of its own.
    let mut answered = 0;
    while elsewhere.get("/api/users/me").await.status == 200 {
        answered += 1;
    }
    assert!(answered < 100, "{answered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_redis_continues_with_its_own_counts() {
    let mut redis = Redis::start().await.unwrap();
    let options = TestApp::postgres().redis(&redis).rate_limits().limit_logins("3/min");
    let [first, _second] = options.start_two().await;
    register(&first, "ada@example.com").await.assert_status(201);
    for _ in 0..2 {
        log_in(&first, "ada@example.com", PASSWORD).await.assert_ok();
    }
    redis.kill().unwrap();
    log_in(&first, "ada@example.com", PASSWORD).await.assert_ok();
    assert_limited(&log_in(&first, "ada@example.com", PASSWORD).await, 3);
}
