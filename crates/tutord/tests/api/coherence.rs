//! What is cached is what the database holds, after every write, on the node that wrote and on another.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use testbed::Redis;
use testbed::model::Behaviour;
use tutord_core::model::Role;

use crate::exercises::load_catalogue;
use crate::harness::{Client, TestApp, answer};

/// Every cached answer about a student.
const READS: &[&str] = &[
    "users/me",
    "users/me/progress",
    "users/me/preferences",
    "users/onboarding/status",
    "chat/conversations",
    "chat/conversations?limit=2&offset=1",
    "chat/conversations/1",
    "chat/conversations/1?order=desc&limit=3",
    "chat/conversations/2",
    "chat/conversations/3",
    "chat/conversations/4",
    "exercises/daily",
    "exercises/history",
    "exercises/history?status=completed",
    "exercises/3",
    "exercises/61",
    "exercises/difficulty/performance",
    "exercises/difficulty/analyze",
    "progress",
    "progress/achievements",
    "progress/badges",
    "progress/statistics",
    "progress/statistics?period=weekly",
    "progress/history?days=7",
    "progress/skill-levels",
    "progress/leaderboard",
    "progress/leaderboard?metric=streak&period=weekly",
    "progress/leaderboard/me",
    "auth/me",
];

/// Routes that write nothing that is cached, or that make what nobody can have asked for before.
const OTHERS: &[&str] = &[
    "POST /api/auth/register",
    "POST /api/auth/login",
    "POST /api/auth/refresh",
    "POST /api/auth/oauth/exchange",
    "POST /api/auth/verify-email",
    "POST /api/auth/resend-verification",
    "POST /api/auth/password-reset",
    "POST /api/auth/password-reset/confirm",
    "POST /api/progress/update-streak",
    "POST /api/progress/calculate-skill-level",
];

async fn read(client: &Client<'_>, path: &str) -> (u16, Value) {
    let found = client.get(&format!("/api/{path}")).await;
    (found.status.as_u16(), found.body)
}

struct Nodes<'a> {
    first: Client<'a>,
    second: Client<'a>,
    uncached: Client<'a>,
    driven: BTreeSet<String>,
}

impl Nodes<'_> {
    /// Has both nodes read everything, writes on the first, and compares: there at once, on the other within the
    /// time that the news takes.
    async fn write(&mut self, method: Method, template: &str, path: &str, body: Value) {
        for path in READS {
            read(&self.first, path).await;
            read(&self.second, path).await;
        }
        let request = self.first.request(method.clone(), &format!("/api/{path}")).json(&body);
        let written = answer(request).await;
        assert!(written.status.is_success(), "{method} {path}: {} {:#}", written.status, written.body);
        for path in READS {
            let expected = read(&self.uncached, path).await;
            assert_eq!(read(&self.first, path).await, expected, "{path} after {method} {template}");
            while read(&self.second, path).await != expected {
                tokio::task::yield_now().await;
            }
        }
        self.driven.insert(format!("{method} /api/{template}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_seen_on_both_nodes() {
    let redis = Redis::start().await.unwrap();
    let [first, second, uncached] = TestApp::two_nodes(&redis).await;
    load_catalogue(&first).await;
    let ada = first.user("ada", Role::Student, true).await;
    let (on_second, on_uncached) = (ada.at(&second), ada.at(&uncached));
    let mut nodes = Nodes { first: ada, second: on_second, uncached: on_uncached, driven: BTreeSet::new() };
    read(&nodes.uncached, "exercises/daily").await;
    let daily = read(&nodes.first, "exercises/daily").await.1["exercise"]["id"].as_i64().unwrap();
    let [hinted, completed, skipped, graded] =
        [3, 4, 5, 6, 7].into_iter().filter(|id| *id != daily).collect::<Vec<i64>>()[..4].try_into().unwrap();

    let w = &mut nodes;
    // Another time zone of the same days: in one where it is tomorrow already, there would be a new daily exercise.
    w.write(Method::PUT, "users/me", "users/me", json!({"name": "Ada L.", "timezone": "Africa/Abidjan"})).await;
    w.write(Method::PUT, "users/me/preferences", "users/me/preferences", json!({"skill_level": "advanced"})).await;
    let onboarding = json!({
        "programming_language": "rust", "skill_level": "expert", "career_goals": "to write a database",
        "learning_style": "hands-on", "time_commitment": "1 hour a day",
    });
    w.write(Method::POST, "users/onboarding", "users/onboarding", onboarding).await;
    // Conversations 1, 2 and 3 were asked for before they were begun.
    w.write(Method::POST, "chat/message", "chat/message", json!({"message": "first"})).await;
    w.write(Method::POST, "chat/conversations", "chat/conversations", json!({"title": "empty"})).await;
    w.write(Method::POST, "chat/stream", "chat/stream", json!({"message": "third"})).await;
    w.write(Method::POST, "chat/message", "chat/message", json!({"message": "more", "conversation_id": 1})).await;
    first.model.next(Behaviour::Fail(400, None));
    let refused = w.first.post("/api/chat/message", json!({"message": "unanswered", "conversation_id": 1})).await;
    assert_eq!(refused.status, 503);
    let retry = "chat/conversations/{id}/retry";
    w.write(Method::POST, retry, "chat/conversations/1/retry", json!({})).await;
    let conversation = "chat/conversations/{id}";
    w.write(Method::PATCH, conversation, "chat/conversations/1", json!({"title": "renamed"})).await;
    w.write(Method::DELETE, conversation, "chat/conversations/3", json!({})).await;

    w.write(Method::POST, "exercises/{id}/hint", &format!("exercises/{hinted}/hint"), json!({})).await;
    w.write(Method::POST, "exercises/{id}/hint", &format!("exercises/{completed}/hint"), json!({})).await;
    w.write(Method::POST, "exercises/{id}/complete", &format!("exercises/{completed}/complete"), json!({})).await;
    w.write(Method::POST, "exercises/{id}/complete", &format!("exercises/{daily}/complete"), json!({})).await;
    w.write(Method::POST, "exercises/{id}/skip", &format!("exercises/{skipped}/skip"), json!({})).await;
    let grade = json!({"grade": 95, "feedback": "Well done.", "strengths": ["short"], "improvements": []});
    first.model.next(Behaviour::Say(grade.to_string()));
    let submit = format!("exercises/{graded}/submit");
    w.write(Method::POST, "exercises/{id}/submit", &submit, json!({"solution": "pass"})).await;
    w.write(Method::POST, "exercises/difficulty/adjust", "exercises/difficulty/adjust", json!({"difficulty": "hard"}))
        .await;
    // Exercise 61 was asked for before it was written.
    first.model.next(crate::exercises::written("A written exercise"));
    w.write(Method::POST, "exercises/generate", "exercises/generate", json!({})).await;
    assert_eq!(read(&w.second, "exercises/61").await.0, 200);
    w.write(Method::PUT, "progress/leaderboard/me", "progress/leaderboard/me", json!({"opted_out": true})).await;
    // Nobody is logged in afterwards, on any node.
    w.write(Method::POST, "auth/logout", "auth/logout", json!({})).await;
    assert_eq!(read(&w.second, "users/me").await.0, 401);

    // No route was forgotten.
    let mut forgotten = Vec::new();
    let description = first.get("/api/openapi.json").await.ok().body;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in ["post", "put", "patch", "delete"].into_iter().filter(|method| methods.get(method).is_some()) {
            // The older release's paths lead to the same routes.
            let route = format!("{} {}", method.to_uppercase(), path.replace("/api/v1/", "/api/"));
            if !nodes.driven.contains(&route) && !OTHERS.contains(&route.as_str()) {
                forgotten.push(route);
            }
        }
    }
    assert_eq!(forgotten, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_reset_and_a_verified_address_are_seen_on_both_nodes() {
    let redis = Redis::start().await.unwrap();
    let [first, second, _] = TestApp::two_nodes(&redis).await;
    let eve = first.user("eve", Role::Student, false).await;
    let elsewhere = eve.at(&second);
    let list = "/api/chat/conversations";
    eve.get(list).await.fails(403, "EMAIL_NOT_VERIFIED");
    elsewhere.get(list).await.fails(403, "EMAIL_NOT_VERIFIED");
    let token = |purpose| {
        let hash: [u8; 32] = rand::random();
        let new = tutord_core::model::NewEmailToken {
            user_id: eve.user.id,
            purpose,
            hash,
            expires_at: tutord_core::Timestamp::now() + std::time::Duration::from_secs(60),
            keeps_earlier: false,
        };
        let store = &first.app.store;
        async move {
            store.create_email_token(new).await.unwrap();
            hash
        }
    };
    let hash = token(tutord_core::model::EmailTokenPurpose::VerifyEmail).await;
    first.app.store.verify_email(&hash).await.unwrap().unwrap();
    eve.get(list).await.ok();
    while elsewhere.get(list).await.status != 200 {
        tokio::task::yield_now().await;
    }
    let hash = token(tutord_core::model::EmailTokenPurpose::PasswordReset).await;
    first.app.store.reset_password(&hash, "another").await.unwrap().unwrap();
    eve.get(list).await.fails(401, "UNAUTHENTICATED");
    while elsewhere.get(list).await.status != 401 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_reads_issue_no_statement() {
    let redis = Redis::start().await.unwrap();
    let app = TestApp::postgres(&["--redis-url", &redis.url()]).await;
    app.app.cache.until_connected().await;
    load_catalogue(&app).await;
    let ada = app.student("ada").await;
    ada.talk("hello").await;
    ada.start(3).await;
    ada.post("/api/exercises/3/complete", json!({})).await.ok();
    // These read what is not cached: the difficulty that was set, one's own neighbourhood, conversations that
    // are not there.
    let uncached = ["exercises/difficulty/analyze", "progress/leaderboard/me"];
    for path in READS.iter().filter(|path| !uncached.contains(path)) {
        for _ in 0..2 {
            read(&ada, path).await;
        }
        let found = ada.get(&format!("/api/{path}")).await;
        assert_eq!(found.statements(), 0, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_student_reads_after_a_message_is_not_read_from_the_database() {
    let redis = Redis::start().await.unwrap();
    let with_redis = TestApp::postgres(&["--redis-url", &redis.url()]).await;
    with_redis.app.cache.until_connected().await;
    for app in [&with_redis, &TestApp::sqlite(&[]).await] {
        let ada = app.student("ada").await;
        let id = ada.talk("hello").await;
        let paths = ["/api/chat/conversations".to_owned(), format!("/api/chat/conversations/{id}")];
        for path in &paths {
            ada.get(path).await.ok();
        }
        ada.post("/api/chat/message", json!({"message": "and then?", "conversation_id": id})).await.ok();
        let mut found = Vec::new();
        for path in &paths {
            let answer = ada.get(path).await.ok();
            assert_eq!(answer.statements(), 0, "{path}");
            found.push(answer.body);
        }
        assert_eq!(found[0]["conversations"][0]["message_count"], 4);
        assert_eq!(found[1]["messages"][2]["content"], "and then?");
        assert_eq!(found[1]["pagination"]["total"], 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_and_comes_back_fails_no_request() {
    let mut redis = Redis::start().await.unwrap();
    let [first, second, uncached] = TestApp::two_nodes(&redis).await;
    let ada = first.student("ada").await;
    let (elsewhere, truth) = (ada.at(&second), ada.at(&uncached));
    let rename = async |name: &str| ada.put("/api/users/me", json!({"name": name})).await.ok();
    let agree = async |name: &str| {
        let expected = truth.get("/api/users/me").await.ok().body;
        assert_eq!(expected["name"], name);
        assert_eq!(ada.get("/api/users/me").await.ok().body, expected);
        while elsewhere.get("/api/users/me").await.ok().body != expected {
            tokio::task::yield_now().await;
        }
    };
    agree("ada").await;
    redis.pause().unwrap();
    rename("paused").await;
    agree("paused").await;
    redis.resume().unwrap();
    agree("paused").await;
    redis.kill().unwrap();
    rename("killed").await;
    agree("killed").await;
    redis.restart().await.unwrap();
    agree("killed").await;
    for node in [&first, &second] {
        node.app.cache.until_connected().await;
    }
    rename("restarted").await;
    agree("restarted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_shown_to_admins() {
    let app = TestApp::sqlite(&[]).await;
    let path = "/api/admin/cache";
    app.student("ada").await.get(path).await.fails(403, "FORBIDDEN");
    let admin = app.user("root", Role::Admin, true).await;
    for _ in 0..3 {
        admin.get("/api/users/me").await.ok();
    }
    let body = admin.get(path).await.ok().body;
    assert_eq!((&body["enabled"], &body["redis"], &body["link"]), (&json!(true), &Value::Null, &Value::Null));
    let profiles = &body["namespaces"][0];
    assert_eq!((&profiles["name"], &profiles["target"]), (&json!("user:profile"), &json!(0.8)));
    assert!(profiles["hit_rate"].as_f64().unwrap() > 0.0 && profiles["l1_hits"].as_u64().unwrap() > 0, "{profiles}");
    crate::harness::is_protected(&app, crate::harness::Needs::VerifiedEmail, Method::GET, path, None).await;
}
