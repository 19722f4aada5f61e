use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use testbed::Redis;
use tutord_core::model::Role;

use crate::auth::{PASSWORD, log_in, register};
use crate::harness::{Answer, TestApp, answer};
use crate::mails::{mail, token};

crate::on_both!(
    registrations_are_limited("--rate-limit-enabled", "true"),
    log_ins_are_limited_by_address("--rate-limit-enabled", "true", "--rate-limit-login", "3/min"),
    failed_log_ins_are_limited_by_account("--rate-limit-enabled", "true", "--rate-limit-login-failures", "2/h"),
    strangers_do_not_lock_a_trusted_browser_out(
        "--rate-limit-enabled",
        "true",
        "--rate-limit-login",
        "",
        "--rate-limit-login-failures",
        "2/h",
        "--rate-limit-login-failures-untrusted",
        "5/h",
        "--trusted-proxies",
        "127.0.0.1"
    ),
    a_trusted_browser_has_failures_of_its_own(
        "--rate-limit-enabled",
        "true",
        "--rate-limit-login-failures",
        "2/h",
        "--rate-limit-login-failures-untrusted",
        "3/h"
    ),
    attempts_at_once_share_an_allowance(
        "--rate-limit-enabled",
        "true",
        "--rate-limit-login",
        "",
        "--rate-limit-login-failures",
        "2/h"
    ),
    an_ipv6_network_has_one_allowance(
        "--rate-limit-enabled",
        "true",
        "--rate-limit-login-failures",
        "2/h",
        "--trusted-proxies",
        "127.0.0.1"
    ),
    submissions_and_exports_are_limited_by_user("--rate-limit-enabled", "true"),
    steps_of_oauth_are_limited_by_address("--rate-limit-enabled", "true", "--rate-limit-oauth", "2/min"),
    mails_are_limited("--rate-limit-enabled", "true"),
    messages_are_limited_by_role(
        "--rate-limit-enabled",
        "true",
        "--rate-limit-chat",
        "2/min",
        "--rate-limit-chat-admin",
        "3/min"
    ),
    everything_else_is_limited_by_user("--rate-limit-enabled", "true", "--rate-limit-other", "4/min"),
);

#[track_caller]
fn limited(answer: &Answer, limit: u32) {
    answer.fails(429, "RATE_LIMIT_EXCEEDED");
    let header = |name: &str| answer.headers[name].to_str().unwrap().parse::<u32>().unwrap();
    assert_eq!((header("x-ratelimit-limit"), header("x-ratelimit-remaining")), (limit, 0));
    assert!(header("retry-after") >= 1);
}

async fn registrations_are_limited(app: &TestApp) {
    for number in 0..5 {
        register(app, &format!("student{number}@example.com")).await.has(201);
    }
    limited(&register(app, "one.more@example.com").await, 5);
}

async fn log_ins_are_limited_by_address(app: &TestApp) {
    register(app, "ada@example.com").await.has(201);
    for _ in 0..3 {
        log_in(app, "ada@example.com", PASSWORD).await.ok();
    }
    limited(&log_in(app, "ada@example.com", PASSWORD).await, 3);
}

async fn failed_log_ins_are_limited_by_account(app: &TestApp) {
    register(app, "ada@example.com").await.has(201);
    for email in ["ada@example.com", "nobody@example.com"] {
        for _ in 0..2 {
            log_in(app, email, "Wrong-1-horse").await.fails(401, "UNAUTHENTICATED");
        }
        // The right password does not help any more, and an account that is none looks the same.
        limited(&log_in(app, &email.to_uppercase(), PASSWORD).await, 2);
    }
}

/// A log-in from an address, by a browser with this device token.
async fn log_in_from(app: &TestApp, address: &str, device: Option<&str>, password: &str) -> Answer {
    let body = json!({"email": "ada@example.com", "password": password});
    let mut request = app.request(Method::POST, "/api/auth/login").header("x-forwarded-for", address).json(&body);
    if let Some(device) = device {
        request = request.header("cookie", format!("device_token={device}"));
    }
    answer(request).await
}

async fn strangers_do_not_lock_a_trusted_browser_out(app: &TestApp) {
    register(app, "ada@example.com").await.has(201);
    let device = log_in_from(app, "192.0.2.1", None, PASSWORD).await.ok().cookie("device_token").unwrap();
    for stranger in 0..5 {
        let address = format!("198.51.100.{stranger}");
        log_in_from(app, &address, None, "Wrong-1-horse").await.fails(401, "UNAUTHENTICATED");
    }
    limited(&log_in_from(app, "203.0.113.1", None, PASSWORD).await, 5);
    // A token that nobody was given is a stranger's too.
    limited(&log_in_from(app, "203.0.113.2", Some(&"x".repeat(43)), PASSWORD).await, 5);
    limited(&log_in_from(app, "203.0.113.2", Some("x"), PASSWORD).await, 5);
    let again = log_in_from(app, "203.0.113.3", Some(&device), PASSWORD).await.ok();
    assert_eq!(again.cookie("device_token").as_ref(), Some(&device), "it is trusted for longer");

    // A new password ends it for everybody, and the trust in all browsers.
    app.post("/api/auth/password-reset", json!({"email": "ada@example.com"})).await.ok();
    let reset = json!({"token": token(&mail(app, 2).await), "new_password": "Another-1-horse"});
    app.post("/api/auth/password-reset/confirm", reset).await.ok();
    let new = log_in_from(app, "203.0.113.1", Some(&device), "Another-1-horse").await.ok().cookie("device_token");
    assert_ne!(new.as_ref(), Some(&device));
    for stranger in 0..5 {
        let address = format!("198.51.100.{stranger}");
        log_in_from(app, &address, None, "Wrong-1-horse").await.fails(401, "UNAUTHENTICATED");
    }
    limited(&log_in_from(app, "203.0.113.1", Some(&device), "Another-1-horse").await, 5);
    log_in_from(app, "203.0.113.1", new.as_deref(), "Another-1-horse").await.ok();
}

async fn a_trusted_browser_has_failures_of_its_own(app: &TestApp) {
    let device = register(app, "ada@example.com").await.has(201).cookie("device_token").unwrap();
    for _ in 0..2 {
        log_in_from(app, "192.0.2.1", Some(&device), "Wrong-1-horse").await.fails(401, "UNAUTHENTICATED");
    }
    limited(&log_in_from(app, "192.0.2.1", Some(&device), PASSWORD).await, 2);
    // They count neither against its address nor against strangers.
    for _ in 0..2 {
        log_in_from(app, "192.0.2.1", None, "Wrong-1-horse").await.fails(401, "UNAUTHENTICATED");
    }
    limited(&log_in_from(app, "192.0.2.1", None, PASSWORD).await, 2);
}

async fn attempts_at_once_share_an_allowance(app: &TestApp) {
    register(app, "ada@example.com").await.has(201);
    let attempts = (0..8).map(|_| log_in_from(app, "192.0.2.1", None, "Wrong-1-horse"));
    let answers = join_all(attempts).await;
    let learned = answers.iter().filter(|answer| answer.status == 401).count();
    assert_eq!(learned, 2, "the others are not told whether they were right");
}

async fn an_ipv6_network_has_one_allowance(app: &TestApp) {
    register(app, "ada@example.com").await.has(201);
    for address in ["2001:db8::1", "2001:db8::ffff:2"] {
        log_in_from(app, address, None, "Wrong-1-horse").await.fails(401, "UNAUTHENTICATED");
    }
    limited(&log_in_from(app, "2001:db8::3", None, PASSWORD).await, 2);
    log_in_from(app, "2001:db8:0:1::1", None, PASSWORD).await.ok();
}

async fn submissions_and_exports_are_limited_by_user(app: &TestApp) {
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    for _ in 0..10 {
        ada.get("/api/progress/export").await.ok();
        ada.post("/api/exercises/1/submit", json!({"solution": "x"})).await.fails(404, "NOT_FOUND");
    }
    limited(&ada.get("/api/progress/export").await, 10);
    limited(&ada.post("/api/exercises/1/submit", json!({"solution": "x"})).await, 10);
    bob.get("/api/progress/export").await.ok();
}

async fn steps_of_oauth_are_limited_by_address(app: &TestApp) {
    for path in ["github", "google/callback"] {
        app.get(&format!("/api/auth/oauth/{path}")).await.fails(501, "NOT_IMPLEMENTED");
    }
    limited(&app.get("/api/auth/oauth/google").await, 2);
    limited(&app.post("/api/auth/oauth/exchange", json!({})).await, 2);
}

async fn mails_are_limited(app: &TestApp) {
    for path in ["/api/auth/resend-verification", "/api/auth/password-reset"] {
        for _ in 0..3 {
            app.post(path, json!({"email": "ada@example.com"})).await.ok();
        }
        limited(&app.post(path, json!({"email": "ada@example.com"})).await, 3);
    }
    let confirm = json!({"token": "x", "new_password": PASSWORD});
    for _ in 0..3 {
        app.post("/api/auth/password-reset/confirm", confirm.clone()).await.refuses("token");
    }
    limited(&app.post("/api/auth/password-reset/confirm", confirm).await, 3);
}

async fn messages_are_limited_by_role(app: &TestApp) {
    let (student, admin) = (app.student("ada").await, app.user("root", Role::Admin, true).await);
    for (client, limit) in [(student, 2), (admin, 3)] {
        for _ in 0..limit {
            client.post("/api/chat/message", json!({"message": "hi"})).await.ok();
        }
        limited(&client.post("/api/chat/message", json!({"message": "hi"})).await, limit);
        limited(&client.post("/api/chat/stream", json!({"message": "hi"})).await, limit);
        assert_eq!(client.get("/api/chat/conversations").await.ok().body["total"], limit, "nothing was stored");
    }
}

async fn everything_else_is_limited_by_user(app: &TestApp) {
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    for _ in 0..4 {
        ada.get("/api/users/me").await.ok();
    }
    limited(&ada.get("/api/users/me").await, 4);
    bob.get("/api/users/me").await.ok();
    for _ in 0..4 {
        app.get("/api/users/me").await.fails(401, "UNAUTHENTICATED");
    }
    limited(&app.get("/api/users/me").await, 4);
    app.get("/health").await.ok();
}

/// Two nodes with these arguments, on one PostgreSQL and one Redis.
async fn two_nodes(redis: &Redis, arguments: &[&str]) -> [TestApp; 2] {
    let url = redis.url();
    let arguments = [&["--redis-url", &url, "--rate-limit-enabled", "true"], arguments].concat();
    let first = TestApp::postgres(&arguments).await;
    let second = first.another(&arguments).await;
    for node in [&first, &second] {
        node.app.cache.until_connected().await;
    }
    [first, second]
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_count_together() {
    let redis = Redis::start().await.unwrap();
    let [first, second] =
        two_nodes(&redis, &["--rate-limit-login", "4/min", "--rate-limit-login-failures", "2/h"]).await;
    register(&first, "ada@example.com").await.has(201);
    for node in [&first, &second] {
        log_in(node, "ada@example.com", "Wrong-1-horse").await.fails(401, "UNAUTHENTICATED");
    }
    // The account has its two failures, whichever node is asked; then the address its four attempts.
    limited(&log_in(&first, "ada@example.com", PASSWORD).await, 2);
    limited(&log_in(&second, "Ada@example.com", PASSWORD).await, 2);
    limited(&log_in(&second, "bob@example.com", PASSWORD).await, 4);
    limited(&log_in(&first, "bob@example.com", PASSWORD).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_tell_each_other_of_everything_else() {
    let redis = Redis::start().await.unwrap();
    let [first, second] = two_nodes(&redis, &["--rate-limit-other", "100/min"]).await;
    let ada = first.student("ada").await;
    let elsewhere = ada.at(&second);
    for _ in 0..100 {
        ada.get("/api/users/me").await.ok();
    }
    limited(&ada.get("/api/users/me").await, 100);
    let key = format!("limit:other:user:{}", ada.user.id);
    let told = "return {tonumber(redis.call('HGET', KEYS[1], '60000:current')) or 0}";
    while first.app.cache.script(told, &key, &[]).await.unwrap() < vec![100] {
        tokio::task::yield_now().await;
    }
    // The second is told with its first request, and refuses long before its own hundred.
    let mut answered = 0;
    while elsewhere.get("/api/users/me").await.status == 200 {
        answered += 1;
    }
    assert!(answered < 100, "{answered}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_node_goes_on_with_what_it_knows() {
    let mut redis = Redis::start().await.unwrap();
    let [first, _second] = two_nodes(&redis, &["--rate-limit-login", "3/min"]).await;
    register(&first, "ada@example.com").await.has(201);
    for _ in 0..2 {
        log_in(&first, "ada@example.com", PASSWORD).await.ok();
    }
    redis.kill().unwrap();
    log_in(&first, "ada@example.com", PASSWORD).await.ok();
    limited(&log_in(&first, "ada@example.com", PASSWORD).await, 3);
}
