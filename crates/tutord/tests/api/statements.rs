//! `docs/statements.md`: the number of statements of each route, with an empty and with a warm cache.

use std::fmt::Write as _;

use readthrough::Invalidation;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use testbed::model::Behaviour;
use tutord::mounts::route_table;

use crate::support::checks::assert_generated;
use crate::support::fixtures::{Conversation, PASSWORD, exercise_reply, grade_reply, register, store};
use crate::support::mailbox::{mailed_token, read_mail};
use crate::support::openapi::{Route, description, routes};
use crate::support::{TestApp, fetch};

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

/// Routes whose response is cached for a second: the number of statements depends on the time.
const SHARED: [&str; 2] = ["/api/health/ready", "/metrics"];

/// A request to send.
struct PreparedRequest {
    method: Method,
    path: String,
    /// The token of the sender, or `None` for a public route.
    token: Option<String>,
    body: Option<Value>,
}

impl PreparedRequest {
    fn build(&self, app: &TestApp) -> RequestBuilder {
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

/// Returns the token in the mail to this address.
async fn token_mailed_to(app: &TestApp, email: &str) -> String {
    let to = format!("To: {email}\r\n");
    let mut number = 1;
    loop {
        let sent = read_mail(app, number).await;
        if sent.contains(&to) {
            return mailed_token(&sent);
        }
        number += 1;
    }
}

/// Creates two requests that a route can serve, and the rows that they need. The names of users begin with `name`.
async fn prepare_requests(app: &TestApp, route: &Route, exercises: &[i64], name: &str) -> [PreparedRequest; 2] {
    let is_admin = route.path.starts_with("/api/admin/");
    let student = if is_admin { app.admin(name).await } else { app.student(name).await };
    student.start_exercise(exercises[0]).await;
    student.complete_exercise(exercises[0]).await.assert_ok();
    let mut both = Vec::new();
    for round in 0..2 {
        let email = format!("{name}-{round}@example.com");
        let mut token = (!route.is_public()).then(|| student.token.clone());
        let (mut id, mut body) = (exercises[1 + round], route.body());
        match route.name().as_str() {
            "POST /api/auth/register" => body = Some(json!({"email": email, "password": PASSWORD, "name": "New"})),
            "POST /api/auth/login" => {
                register(app, &email).await.assert_status(201);
                body = Some(json!({"email": email, "password": PASSWORD}));
            }
            "POST /api/auth/refresh" => {
                let refresh = register(app, &email).await.assert_status(201).cookie("refresh_token").unwrap();
                body = Some(json!({"refresh_token": refresh}));
            }
            "POST /api/auth/verify-email" => {
                register(app, &email).await.assert_status(201);
                body = Some(json!({"token": token_mailed_to(app, &email).await}));
            }
            "POST /api/auth/password-reset/confirm" => {
                app.student(&format!("{name}-{round}")).await;
                app.post("/api/auth/password-reset", json!({"email": email})).await.assert_ok();
                body = Some(json!({"token": token_mailed_to(app, &email).await, "new_password": PASSWORD}));
            }
            "POST /api/auth/oauth/exchange" => body = Some(json!({})),
            "POST /api/auth/logout" | "POST /api/users/onboarding" => {
                token = Some(app.student(&format!("{name}-{round}")).await.token);
            }
            "POST /api/chat/conversations/{id}/retry" => {
                app.model.next(Behaviour::Fail(500, None));
                let failed = student.send_message(json!({"message": "hello"})).await.assert_status(503);
                id = Conversation::of_error(&failed).id;
            }
            chat if chat.contains("/api/chat/conversations/{id}") => id = student.start_conversation("hello").await.id,
            "POST /api/exercises/generate" => app.model.next(exercise_reply(&format!("Exercise {round}"))),
            "POST /api/exercises/{id}/complete" => student.start_exercise(id).await,
            "POST /api/exercises/{id}/submit" => app.model.next(grade_reply(70)),
            _ => {}
        }
        both.push(PreparedRequest { method: route.method.clone(), path: route.at(id), token, body });
    }
    both.try_into().ok().expect("two of them")
}

/// Returns the number of statements of a route's first request and of the second one.
async fn count(app: &TestApp, route: &Route, exercises: &[i64], name: &str) -> [u32; 2] {
    let [first, second] = prepare_requests(app, route, exercises, name).await;
    let statements = async |request: &PreparedRequest| {
        // A repeated invalidation would evict values during the request.
        store::acknowledge_changes(app).await;
        let response = fetch(request.build(app)).await;
        let is_served = response.status.is_success() || response.status == 501;
        assert!(is_served, "{} {}: {} {:#}", request.method, request.path, response.status, response.body);
        response.statement_count()
    };
    assert_eq!(app.cache().flush("*").await.unwrap(), Invalidation::Complete);
    let cold = statements(&first).await;
    if let Some(other) = second.token.as_ref().filter(|token| first.token.as_ref() != Some(token)) {
        fetch(app.request(Method::GET, "/api/auth/me").bearer_auth(other)).await.assert_ok();
    }
    // The second request of a read is the first one again.
    [cold, statements(if route.method == Method::GET { &first } else { &second }).await]
}

/// Returns the name, the budget and the counts of each route.
async fn counts(app: &TestApp) -> Vec<(String, u32, [u32; 2])> {
    let exercises = app.load_catalogue().await;
    let mut counts = Vec::new();
    for (index, route) in routes(&description(app).await).iter().enumerate() {
        if SHARED.contains(&route.path.as_str()) {
            continue;
        }
        let most = route_table().budget(&route.method, &route.path).unwrap();
        let issued = count(app, route, &exercises, &format!("student-{index}")).await;
        counts.push((format!("{} {}", route.method, route.path), most, issued));
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_issues_the_documented_number_of_statements() {
    let (sqlite, postgres) = tokio::join!(TestApp::sqlite().start(), TestApp::postgres().start());
    let (sqlite, postgres) = tokio::join!(counts(&sqlite), counts(&postgres));
    let mut counted = HEAD.to_owned();
    for ((route, budget, sqlite), (_, _, postgres)) in sqlite.into_iter().zip(postgres) {
        let [cold, warm, other_cold, other_warm] = [sqlite, postgres].concat()[..] else { unreachable!() };
        writeln!(counted, "| `{route}` | {budget} | {cold} | {warm} | {other_cold} | {other_warm} |").unwrap();
    }
    assert_generated("docs/statements.md", &counted);
}
