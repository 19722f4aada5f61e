//! `docs/statements.md`: how many statements each route issues, on an empty cache and on a full one.

use std::fmt::Write as _;

use readthrough::Invalidation;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testbed::model::Behaviour;
use tutord::mounts::route_table;
use tutord_core::model::Role;

use crate::auth::{PASSWORD, register};
use crate::contract::{Route, description, routes};
use crate::exercises::{load_catalogue, review, written};
use crate::harness::{TestApp, answer, assert_generated};
use crate::mails::{mail, token};

const HEAD: &str = "\
# Statements of each route

The most SQL statements that a request may issue (its budget), and those that it issues until its answer begins: with an empty cache, and
once more when the cache holds what the first request left there (warm). Log-in included, `BEGIN` and `COMMIT` too. A test counts
them, on SQLite and on PostgreSQL with Redis, and fails when one is not as written here. Where a route changes something, the second request
does the like: it completes another exercise, sends another message. The readiness and metrics routes are left out: their answers are
computed at most once a second, whoever asks.

| route | budget | SQLite | warm | PostgreSQL | warm |
|---|--:|--:|--:|--:|--:|
";

/// Routes whose answer is shared for a second: whether a request issues statements depends on the time.
const SHARED: [&str; 2] = ["/api/health/ready", "/metrics"];

/// One request, ready to be sent.
struct Ready {
    method: Method,
    path: String,
    /// Of who sends it, unless it is nobody.
    token: Option<String>,
    body: Option<Value>,
}

impl Ready {
    fn request(&self, app: &TestApp) -> RequestBuilder {
        let mut request = app.request(self.method.clone(), &self.path);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        match &self.body {
            Some(body) => request.json(body),
            None => request,
        }
    }
}

/// The token that was mailed to this address.
async fn mailed(app: &TestApp, email: &str) -> String {
    let to = format!("To: {email}\r\n");
    let mut number = 1;
    loop {
        let sent = mail(app, number).await;
        if sent.contains(&to) {
            return token(&sent);
        }
        number += 1;
    }
}

/// Two requests that a route can serve. What they need is there afterwards; names that begin with `name` are theirs.
async fn ready(app: &TestApp, route: &Route, name: &str) -> [Ready; 2] {
    let role = if route.path.starts_with("/api/admin/") { Role::Admin } else { Role::Student };
    let student = app.user(name, role, true).await;
    student.start(1).await;
    student.post("/api/exercises/1/complete", json!({})).await.ok();
    let mut both = Vec::new();
    for round in 0..2 {
        let email = format!("{name}-{round}@example.com");
        let mut token = (!route.is_public()).then(|| student.token.clone());
        let (mut id, mut body) = (2 + round, route.body());
        match route.name().as_str() {
            "POST /api/auth/register" => body = Some(json!({"email": email, "password": PASSWORD, "name": "New"})),
            "POST /api/auth/login" => {
                register(app, &email).await.has(201);
                body = Some(json!({"email": email, "password": PASSWORD}));
            }
            "POST /api/auth/refresh" => {
                let refresh = register(app, &email).await.has(201).cookie("refresh_token").unwrap();
                body = Some(json!({"refresh_token": refresh}));
            }
            "POST /api/auth/verify-email" => {
                register(app, &email).await.has(201);
                body = Some(json!({"token": mailed(app, &email).await}));
            }
            "POST /api/auth/password-reset/confirm" => {
                app.user(&format!("{name}-{round}"), Role::Student, true).await;
                app.post("/api/auth/password-reset", json!({"email": email})).await.ok();
                body = Some(json!({"token": mailed(app, &email).await, "new_password": PASSWORD}));
            }
            "POST /api/auth/oauth/exchange" => body = Some(json!({})),
            "POST /api/auth/logout" | "POST /api/users/onboarding" => {
                token = Some(app.user(&format!("{name}-{round}"), Role::Student, true).await.token);
            }
            "POST /api/chat/conversations/{id}/retry" => {
                app.model.next(Behaviour::Fail(500, None));
                let failed = student.post("/api/chat/message", json!({"message": "hello"})).await.has(503);
                id = failed.body["error"]["details"]["conversation_id"].as_i64().unwrap();
            }
            chat if chat.contains("/api/chat/conversations/{id}") => id = student.talk("hello").await,
            "POST /api/exercises/generate" => app.model.next(written(&format!("Exercise {round}"))),
            "POST /api/exercises/{id}/complete" => student.start(id).await,
            "POST /api/exercises/{id}/submit" => app.model.next(review(70)),
            _ => {}
        }
        both.push(Ready { method: route.method.clone(), path: route.at(&id.to_string()), token, body });
    }
    both.try_into().ok().expect("two of them")
}

/// Every write has ended, and so has what it makes of the cache: nobody is to act on it once more, which would empty a part of it.
async fn settle(app: &TestApp) {
    let operations = &app.app.operations;
    operations.acknowledge_changes(&operations.own_changes(1_000).await.unwrap()).await.unwrap();
}

/// The statements of a route's first request, and of its repetition.
async fn count(app: &TestApp, route: &Route, name: &str) -> [u32; 2] {
    let [first, second] = ready(app, route, name).await;
    let statements = async |ready: &Ready| {
        settle(app).await;
        let answer = answer(ready.request(app)).await;
        let served = answer.status.is_success() || answer.status == 501;
        assert!(served, "{} {}: {} {:#}", ready.method, ready.path, answer.status, answer.body);
        answer.statements()
    };
    assert_eq!(app.app.cache.flush("*").await.unwrap(), Invalidation::Complete);
    let cold = statements(&first).await;
    if let Some(other) = second.token.as_ref().filter(|token| first.token.as_ref() != Some(token)) {
        answer(app.request(Method::GET, "/api/auth/me").bearer_auth(other)).await.ok();
    }
    // What changes nothing is asked again as it was.
    [cold, statements(if route.method == Method::GET { &first } else { &second }).await]
}

/// The counts of all routes.
async fn counts(app: &TestApp) -> Vec<(String, u32, [u32; 2])> {
    load_catalogue(app).await;
    let mut counts = Vec::new();
    for (index, route) in routes(&description(app).await).iter().enumerate() {
        if SHARED.contains(&route.path.as_str()) {
            continue;
        }
        let most = route_table().budget(&route.method, &route.path).unwrap();
        let issued = count(app, route, &format!("student-{index}")).await;
        counts.push((format!("{} {}", route.method, route.path), most, issued));
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_issues_the_statements_that_are_documented() {
    let (sqlite, postgres) = tokio::join!(TestApp::sqlite(&[]), TestApp::postgres(&[]));
    let (sqlite, postgres) = tokio::join!(counts(&sqlite), counts(&postgres));
    let mut counted = HEAD.to_owned();
    for ((route, budget, sqlite), (_, _, postgres)) in sqlite.into_iter().zip(postgres) {
        let [cold, warm, other_cold, other_warm] = [sqlite, postgres].concat()[..] else { unreachable!() };
        writeln!(counted, "| `{route}` | {budget} | {cold} | {warm} | {other_cold} | {other_warm} |").unwrap();
    }
    assert_generated("docs/statements.md", &counted);
}
