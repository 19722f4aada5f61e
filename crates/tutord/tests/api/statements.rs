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

## Statements

The most SQL statements that a request may issue (its budget), and those that it issues until its
answer begins: with an empty cache, and once more when the cache holds what the first request left
there (warm). Log-in included, `BEGIN` and `COMMIT` too. A test counts them, on SQLite and on
PostgreSQL with Redis, and fails when one is not as written here. Where a route changes something,
the second request does the like: it completes another exercise, sends another message. The
readiness and metrics routes are left out: their answers are computed at most once a second, whoever
asks.

| route | budget | SQLite | warm | PostgreSQL | warm |
|---|--:|--:|--:|--:|--:|
";

const ROUND_TRIPS_HEAD: &str = "
## Round trips on PostgreSQL

The round trips of a request to the database until its answer begins: those that follow one another,
then all. Statements that are sent together are one round trip; preparing a statement is one more.

- cold: the cache is empty, and no statement is prepared on the connection;
- session cached: the cache holds the session and nothing else, and all statements are prepared;
- warm: the cache also holds what an earlier request left there.

The budget bounds the sequential round trips of a request whose session is cached. The test fails
when a request exceeds it.

| route | budget | cold | all | session cached | all | warm | all |
|---|--:|--:|--:|--:|--:|--:|--:|
";

/// Routes with a budget other than one sequential round trip.
const ROUND_TRIP_BUDGETS: &[(&str, u32)] = &[
    ("GET /api/admin/queries", 2),
    ("POST /api/auth/login", 3),
    ("POST /api/auth/password-reset", 2),
    ("POST /api/auth/password-reset/confirm", 3),
    ("POST /api/auth/refresh", 2),
    ("POST /api/auth/register", 4),
    ("POST /api/auth/resend-verification", 2),
    ("POST /api/auth/verify-email", 2),
    ("POST /api/chat/conversations/{id}/retry", 2),
    ("POST /api/chat/message", 2),
    ("GET /api/exercises/daily", 8),
    ("POST /api/exercises/difficulty/adjust", 2),
    ("GET /api/exercises/difficulty/analyze", 2),
    ("POST /api/exercises/generate", 4),
    ("POST /api/exercises/{id}/complete", 2),
    ("POST /api/exercises/{id}/hint", 2),
    ("POST /api/exercises/{id}/skip", 2),
    ("POST /api/exercises/{id}/submit", 4),
    ("GET /api/progress/leaderboard/me", 2),
    ("PUT /api/progress/leaderboard/me", 2),
];

/// Routes whose response is cached for a second: the number of statements depends on the time.
const SHARED: [&str; 2] = ["/api/health/ready", "/metrics"];

/// Reads that are not cached, or whose first request changes what the second one reads.
const UNCACHED: [&str; 4] = [
    "GET /api/admin/queries",
    "GET /api/exercises/daily",
    "GET /api/exercises/difficulty/analyze",
    "GET /api/progress/leaderboard/me",
];

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

/// Creates requests that a route can serve, and the rows that they need. The names of users begin with `name`.
async fn prepare_requests(app: &TestApp, route: &Route, exercises: &[i64], name: &str) -> [PreparedRequest; 3] {
    let is_admin = route.path.starts_with("/api/admin/");
    let student = if is_admin { app.admin(name).await } else { app.student(name).await };
    student.start_exercise(exercises[0]).await;
    student.complete_exercise(exercises[0]).await.assert_ok();
    let mut requests = Vec::new();
    for round in 0..3 {
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
            "GET /api/exercises/daily" | "POST /api/auth/logout" | "POST /api/users/onboarding" => {
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
        requests.push(PreparedRequest { method: route.method.clone(), path: route.at(id), token, body });
    }
    requests.try_into().ok().expect("one for each round")
}

/// The statements of a request, and its round trips: those that follow one another, and all.
#[derive(Clone, Copy)]
struct Cost {
    statements: u32,
    round_trips: [u32; 2],
}

/// Closes the connections of the pool, so that no statement is prepared on the next one.
async fn close_connections(app: &TestApp) {
    if app.is_sqlite() {
        return;
    }
    let ping = async || app.operations().ping().await;
    ping().await.unwrap();
    // The pool has one connection. The others read the identity of the database and the outbox.
    let closed = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                  WHERE datname = current_database() AND application_name = 'tutord' \
                  AND query !~ 'pg_control_system|FROM outbox WHERE|LISTEN|pg_try_advisory_lock'";
    assert_eq!(app.query_count(closed).await, 1);
    while ping().await.is_err() {}
}

/// Returns the costs of a route: cold, with a cached session, and warm.
async fn count(app: &TestApp, route: &Route, exercises: &[i64], name: &str) -> [Cost; 3] {
    let requests = prepare_requests(app, route, exercises, name).await;
    let cost = async |request: &PreparedRequest| {
        // A repeated invalidation would evict values during the request.
        store::acknowledge_changes(app).await;
        let response = fetch(request.build(app)).await;
        let is_served = response.status.is_success() || response.status == 501;
        assert!(is_served, "{} {}: {} {:#}", request.method, request.path, response.status, response.body);
        Cost { statements: response.statement_count(), round_trips: response.round_trips() }
    };
    let flush = async || assert_eq!(app.cache().flush("*").await.unwrap(), Invalidation::Complete);
    let authenticate = async |request: &PreparedRequest| {
        if let Some(token) = &request.token {
            fetch(app.request(Method::GET, "/api/auth/me").bearer_auth(token)).await.assert_ok();
        }
    };
    let [first, second, third] = &requests;
    close_connections(app).await;
    flush().await;
    let cold = cost(first).await;
    authenticate(second).await;
    cost(second).await;
    if route.method == Method::GET {
        flush().await;
        authenticate(third).await;
        // The last request of a read is the one before again.
        return [cold, cost(third).await, cost(third).await];
    }
    authenticate(third).await;
    let warm = cost(third).await;
    [cold, warm, warm]
}

/// Returns the name, the budget and the costs of each route.
async fn counts(app: &TestApp) -> Vec<(String, u32, [Cost; 3])> {
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
    let postgres = TestApp::postgres().pool_size(1).max_overflow(0);
    let (sqlite, postgres) = tokio::join!(TestApp::sqlite().start(), postgres.start());
    let (sqlite, postgres) = tokio::join!(counts(&sqlite), counts(&postgres));
    let (mut statements, mut round_trips) = (HEAD.to_owned(), ROUND_TRIPS_HEAD.to_owned());
    let mut exceeded = Vec::new();
    for ((route, budget, sqlite), (_, _, postgres)) in sqlite.into_iter().zip(postgres) {
        let [cold, _, warm] = sqlite.map(|cost| cost.statements);
        let [other_cold, _, other_warm] = postgres.map(|cost| cost.statements);
        writeln!(statements, "| `{route}` | {budget} | {cold} | {warm} | {other_cold} | {other_warm} |").unwrap();
        let most = ROUND_TRIP_BUDGETS.iter().find(|(name, _)| *name == route).map_or(1, |(_, most)| *most);
        let [cold, prepared, warm] =
            postgres.map(|Cost { round_trips: [sequential, all], .. }| (sequential, format!("{sequential} | {all}")));
        writeln!(round_trips, "| `{route}` | {most} | {} | {} | {} |", cold.1, prepared.1, warm.1).unwrap();
        if prepared.0 > most || route.starts_with("GET") && warm.0 > 0 && !UNCACHED.contains(&route.as_str()) {
            exceeded.push(format!("{route}: {} of {most} sequential round trips, {} if cached", prepared.0, warm.0));
        }
    }
    assert_generated("docs/statements.md", &(statements + &round_trips));
    assert!(exceeded.is_empty(), "{exceeded:#?}");
}
