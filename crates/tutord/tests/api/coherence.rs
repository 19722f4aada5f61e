//! After every write, cached values equal those of the database, on the node that wrote and on another node.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use testbed::Redis;
use testbed::model::Behaviour;

use crate::support::checks::{Requirement, assert_protected};
use crate::support::fixtures::{UNKNOWN_ID, exercise_reply, store};
use crate::support::{TestApp, TestClient, fetch};

/// The routes whose responses about a student are cached.
const READS: &[&str] = &[
    "users/me",
    "users/me/progress",
    "users/me/preferences",
    "users/onboarding/status",
    "chat/conversations",
    "chat/conversations?limit=2&offset=1",
    "exercises/daily",
    "exercises/history",
    "exercises/history?status=completed",
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

/// Routes that write no cached value, or create a row that no earlier request can have read.
const OTHER_WRITES: &[&str] = &[
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

async fn read(client: &TestClient<'_>, path: &str) -> (u16, Value) {
    let found = client.get(&format!("/api/{path}")).await;
    (found.status.as_u16(), found.body)
}

/// A student on two nodes with a cache and on one without.
struct Nodes<'a> {
    first: TestClient<'a>,
    second: TestClient<'a>,
    uncached: TestClient<'a>,
    /// The paths that each write compares.
    reads: Vec<String>,
    /// The routes that were called.
    tested: BTreeSet<String>,
}

impl Nodes<'_> {
    /// Reads everything on both nodes, writes on the first, and compares: on the first node at once, on the second once
    /// it received the invalidation.
    async fn write(&mut self, method: Method, template: &str, path: &str, body: Value) {
        for path in &self.reads {
            read(&self.first, path).await;
            read(&self.second, path).await;
        }
        let request = self.first.request(method.clone(), &format!("/api/{path}")).json(&body);
        let written = fetch(request).await;
        assert!(written.status.is_success(), "{method} {path}: {} {:#}", written.status, written.body);
        for path in &self.reads {
            let expected = read(&self.uncached, path).await;
            assert_eq!(read(&self.first, path).await, expected, "{path} after {method} {template}");
            while read(&self.second, path).await != expected {
                tokio::task::yield_now().await;
            }
        }
        self.tested.insert(format!("{method} /api/{template}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_see_every_write() {
    let redis = Redis::start().await.unwrap();
    let [first, second, uncached] = TestApp::two_cached_nodes_and_one_uncached(&redis).await;
    let exercises = first.load_catalogue().await;
    let ada = first.student("ada").await;
    // A conversation of another student shows the next ids: the nodes read rows before a write creates them.
    let earlier = first.student("eve").await.conversation().create().await.id;
    let [begun, empty, streamed, never] = [1, 2, 3, 4].map(|number| format!("chat/conversations/{}", earlier + number));
    let generated = format!("exercises/{}", exercises.last().unwrap() + 1);
    let mut reads: Vec<String> = READS.iter().map(|path| (*path).to_owned()).collect();
    reads.extend([&begun, &empty, &streamed, &never, &generated].map(Clone::clone));
    reads.extend([format!("{begun}?order=desc&limit=3"), format!("exercises/{}", exercises[2])]);
    let (on_second, on_uncached) = (ada.on_node(&second), ada.on_node(&uncached));
    let mut nodes = Nodes { first: ada, second: on_second, uncached: on_uncached, reads, tested: BTreeSet::new() };
    read(&nodes.uncached, "exercises/daily").await;
    let daily = read(&nodes.first, "exercises/daily").await.1["exercise"]["id"].as_i64().unwrap();
    let [hinted, completed, skipped, graded] =
        exercises[2..7].iter().copied().filter(|id| *id != daily).collect::<Vec<i64>>()[..4].try_into().unwrap();

    let w = &mut nodes;
    // A time zone with the same date as UTC: in another zone there could be a new daily exercise.
    w.write(Method::PUT, "users/me", "users/me", json!({"name": "Ada L.", "timezone": "Africa/Abidjan"})).await;
    w.write(Method::PUT, "users/me/preferences", "users/me/preferences", json!({"skill_level": "advanced"})).await;
    let onboarding = json!({
        "programming_language": "rust", "skill_level": "expert", "career_goals": "to write a database",
        "learning_style": "hands-on", "time_commitment": "1 hour a day",
    });
    w.write(Method::POST, "users/onboarding", "users/onboarding", onboarding).await;
    w.write(Method::POST, "chat/message", "chat/message", json!({"message": "first"})).await;
    w.write(Method::POST, "chat/conversations", "chat/conversations", json!({"title": "empty"})).await;
    w.write(Method::POST, "chat/stream", "chat/stream", json!({"message": "third"})).await;
    let conversation = earlier + 1;
    w.write(Method::POST, "chat/message", "chat/message", json!({"message": "more", "conversation_id": conversation}))
        .await;
    first.model.next(Behaviour::Fail(400, None));
    let failed = w.first.send_message(json!({"message": "unanswered", "conversation_id": conversation})).await;
    assert_eq!(failed.status, 503);
    w.write(Method::POST, "chat/conversations/{id}/retry", &format!("{begun}/retry"), json!({})).await;
    w.write(Method::PATCH, "chat/conversations/{id}", &begun, json!({"title": "renamed"})).await;
    w.write(Method::DELETE, "chat/conversations/{id}", &streamed, json!({})).await;
    for (path, status) in [(&begun, 200), (&empty, 200), (&streamed, 404), (&never, 404)] {
        assert_eq!(read(&w.second, path).await.0, status, "{path}: the ids are those of the writes");
    }

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
    first.model.next(exercise_reply("A written exercise"));
    w.write(Method::POST, "exercises/generate", "exercises/generate", json!({})).await;
    assert_eq!(read(&w.second, &generated).await.0, 200);
    w.write(Method::PUT, "progress/leaderboard/me", "progress/leaderboard/me", json!({"opted_out": true})).await;
    // The logout ends the session on every node.
    w.write(Method::POST, "auth/logout", "auth/logout", json!({})).await;
    assert_eq!(read(&w.second, "users/me").await.0, 401);

    let mut untested = Vec::new();
    let description = first.get("/api/openapi.json").await.assert_ok().body;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for method in ["post", "put", "patch", "delete"].into_iter().filter(|method| methods.get(method).is_some()) {
            // The older release's paths have the same routes.
            let route = format!("{} {}", method.to_uppercase(), path.replace("/api/v1/", "/api/"));
            if !nodes.tested.contains(&route) && !OTHER_WRITES.contains(&route.as_str()) {
                untested.push(route);
            }
        }
    }
    assert_eq!(untested, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_see_a_verified_address_and_a_password_reset() {
    let redis = Redis::start().await.unwrap();
    let [first, second, _] = TestApp::two_cached_nodes_and_one_uncached(&redis).await;
    let eve = first.user("eve").unverified().create().await;
    let elsewhere = eve.on_node(&second);
    let list = "/api/chat/conversations";
    eve.get(list).await.assert_error(403, "EMAIL_NOT_VERIFIED");
    elsewhere.get(list).await.assert_error(403, "EMAIL_NOT_VERIFIED");
    store::verify_email(&eve).await;
    eve.get(list).await.assert_ok();
    while elsewhere.get(list).await.status != 200 {
        tokio::task::yield_now().await;
    }
    store::reset_password(&eve).await;
    eve.get(list).await.assert_error(401, "UNAUTHENTICATED");
    while elsewhere.get(list).await.status != 401 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_read_issues_no_statement() {
    let redis = Redis::start().await.unwrap();
    let app = TestApp::postgres().redis(&redis).start().await;
    let exercise = app.load_catalogue().await[2];
    let ada = app.student("ada").await;
    let conversation = ada.start_conversation("hello").await.id;
    ada.start_exercise(exercise).await;
    ada.complete_exercise(exercise).await.assert_ok();
    let rows = [
        format!("chat/conversations/{conversation}"),
        format!("chat/conversations/{conversation}?order=desc&limit=3"),
        // An unknown row is cached too.
        format!("chat/conversations/{}", conversation + 1),
        format!("exercises/{exercise}"),
        format!("exercises/{UNKNOWN_ID}"),
    ];
    // The cache does not contain the difficulty that a student set, and the neighbours on a leaderboard.
    let uncached = ["exercises/difficulty/analyze", "progress/leaderboard/me"];
    let cached = READS.iter().filter(|path| !uncached.contains(path)).copied();
    for path in cached.chain(rows.iter().map(String::as_str)) {
        for _ in 0..2 {
            read(&ada, path).await;
        }
        let response = ada.get(&format!("/api/{path}")).await;
        assert_eq!(response.statement_count(), 0, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_after_a_message_issues_no_statement() {
    let redis = Redis::start().await.unwrap();
    for app in [TestApp::postgres().redis(&redis).start().await, TestApp::sqlite().start().await] {
        let ada = app.student("ada").await;
        let conversation = ada.start_conversation("hello").await;
        let paths = ["/api/chat/conversations".to_owned(), conversation.path()];
        for path in &paths {
            ada.get(path).await.assert_ok();
        }
        ada.send_message_in(conversation, "and then?").await.assert_ok();
        let mut found = Vec::new();
        for path in &paths {
            let response = ada.get(path).await.assert_ok();
            assert_eq!(response.statement_count(), 0, "{path}");
            found.push(response.body);
        }
        assert_eq!(found[0]["conversations"][0]["message_count"], 4);
        assert_eq!(found[1]["messages"][2]["content"], "and then?");
        assert_eq!(found[1]["pagination"]["total"], 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_outage_fails_no_request() {
    let mut redis = Redis::start().await.unwrap();
    let [first, second, uncached] = TestApp::two_cached_nodes_and_one_uncached(&redis).await;
    let ada = first.student("ada").await;
    let (elsewhere, truth) = (ada.on_node(&second), ada.on_node(&uncached));
    let rename = async |name: &str| ada.put("/api/users/me", json!({"name": name})).await.assert_ok();
    let agree = async |name: &str| {
        let expected = truth.get("/api/users/me").await.assert_ok().body;
        assert_eq!(expected["name"], name);
        assert_eq!(ada.get("/api/users/me").await.assert_ok().body, expected);
        while elsewhere.get("/api/users/me").await.assert_ok().body != expected {
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
        node.cache().until_connected().await;
    }
    rename("restarted").await;
    agree("restarted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_route_requires_an_admin() {
    let app = TestApp::sqlite().start().await;
    let path = "/api/admin/cache";
    app.student("ada").await.get(path).await.assert_error(403, "FORBIDDEN");
    let admin = app.admin("root").await;
    for _ in 0..3 {
        admin.get("/api/users/me").await.assert_ok();
    }
    let body = admin.get(path).await.assert_ok().body;
    assert_eq!((&body["enabled"], &body["redis"], &body["link"]), (&json!(true), &Value::Null, &Value::Null));
    let profiles = &body["namespaces"][0];
    assert_eq!((&profiles["name"], &profiles["target"]), (&json!("user:profile"), &json!(0.8)));
    assert!(profiles["hit_rate"].as_f64().unwrap() > 0.0 && profiles["l1_hits"].as_u64().unwrap() > 0, "{profiles}");
    assert_protected(&app, Requirement::VerifiedEmail, Method::GET, path, None).await;
}
