//! The permissions of each operation of the API's description and each kind of caller.
//!
//! The field `x-requires` of an operation contains its requirement. This file creates the row that an id names; an
//! operation with another kind of id fails the test. A new route can't escape the matrix.

use std::time::Duration;

use reqwest::header::COOKIE;
use serde_json::{Value, json};

use crate::support::openapi::{Route, description, routes};
use crate::support::{TestApp, TestClient, TestResponse, fetch};

crate::on_both!(every_operation_enforces_its_requirement, the_matrix_finds_a_wrong_requirement);

/// A text in everything that the owner has. No other caller may see it.
const SECRET: &str = "xyzzy";

/// The kind of a caller.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Caller {
    Nobody,
    Garbage,
    Expired,
    Revoked,
    Deactivated,
    Unverified,
    /// Sends the cookies of a login without its CSRF token.
    Forged,
    OtherStudent,
    Admin,
    /// The last caller, because the call may delete the row.
    Owner,
}

impl Caller {
    const ALL: [Self; 10] = [
        Self::Nobody,
        Self::Garbage,
        Self::Expired,
        Self::Revoked,
        Self::Deactivated,
        Self::Unverified,
        Self::Forged,
        Self::OtherStudent,
        Self::Admin,
        Self::Owner,
    ];
}

/// The users of a matrix.
struct Users<'a> {
    app: &'a TestApp,
    owner: TestClient<'a>,
    other: TestClient<'a>,
    unverified: TestClient<'a>,
    deactivated: TestClient<'a>,
    admin: TestClient<'a>,
}

impl<'a> Users<'a> {
    async fn create(app: &'a TestApp) -> Self {
        app.load_catalogue().await;
        let owner = app.student(&format!("owner-{SECRET}")).await;
        owner
            .put("/api/users/me", json!({"name": "Owner", "bio": SECRET, "career_goals": SECRET.repeat(2)}))
            .await
            .assert_ok();
        let deactivated = app.student("deactivated").await;
        let sql = "UPDATE users SET is_active = FALSE WHERE email = 'deactivated@example.com'";
        app.execute_sql(sql).await;
        Self {
            app,
            owner,
            other: app.student("other").await,
            unverified: app.user("unverified").unverified().create().await,
            deactivated,
            admin: app.admin("admin").await,
        }
    }

    /// Creates a row of the owner for this operation; returns its id.
    async fn create_row(&self, path: &str) -> Result<String, String> {
        let id = if path.starts_with("/api/chat/conversations/{id}") {
            let conversation = self.owner.start_conversation(SECRET).await;
            if path.ends_with("/retry") {
                // The owner has a message to retry.
                self.app.model.next(testbed::model::Behaviour::Fail(400, None));
                self.owner.send_message_in(conversation, SECRET).await.assert_status(503);
            }
            json!(conversation.id)
        } else if path.starts_with("/api/exercises/{id}") {
            json!(self.owner.generate_exercise(SECRET).await)
        } else if path.contains('{') {
            return Err(format!("{path}: the matrix can't create the row of its id"));
        } else {
            Value::Null
        };
        Ok(id.to_string())
    }

    /// Calls an operation with a new session, because the operation may end it.
    async fn call(&self, caller: Caller, route: &Route, path: &str) -> TestResponse {
        let session =
            async |client: &TestClient<'_>| self.app.create_session(client.user_id, Duration::from_secs(3_600)).await;
        let token = match caller {
            Caller::Nobody => None,
            Caller::Garbage => Some("garbage".to_owned()),
            Caller::Expired => Some(self.app.create_session(self.owner.user_id, Duration::ZERO).await),
            Caller::Revoked => {
                let token = session(&self.owner).await;
                self.app.revoke_session(&token).await;
                Some(token)
            }
            Caller::Deactivated => Some(session(&self.deactivated).await),
            Caller::Unverified => Some(session(&self.unverified).await),
            Caller::OtherStudent => Some(session(&self.other).await),
            Caller::Admin => Some(session(&self.admin).await),
            Caller::Forged | Caller::Owner => Some(session(&self.owner).await),
        };
        let mut request = self.app.request(route.method.clone(), path);
        request = match token {
            None => request,
            Some(token) if caller == Caller::Forged => {
                request.header(COOKIE, format!("access_token={token}; csrf_token=known"))
            }
            Some(token) => request.bearer_auth(token),
        };
        if let Some(body) = route.body() {
            request = request.json(&body);
        }
        fetch(request).await
    }
}

/// Returns the status and code of the rejection, or `None` if the operation must not reject the caller.
fn expected_rejection(caller: Caller, route: &Route) -> Option<(u16, &'static str)> {
    let requires = route.requires();
    let is_foreign = route.path.contains('{');
    let writes = route.method != reqwest::Method::GET;
    match (requires, caller) {
        ("public", _) => None,
        (_, Caller::Nobody | Caller::Garbage | Caller::Revoked) => Some((401, "UNAUTHENTICATED")),
        (_, Caller::Expired) => Some((401, "TOKEN_EXPIRED")),
        (_, Caller::Deactivated) => Some((403, "FORBIDDEN")),
        (_, Caller::Forged) if writes => Some((403, "CSRF_FAILED")),
        ("verified" | "admin", Caller::Unverified) => Some((403, "EMAIL_NOT_VERIFIED")),
        ("admin", Caller::OtherStudent | Caller::Owner | Caller::Forged) => Some((403, "FORBIDDEN")),
        ("verified", Caller::OtherStudent | Caller::Admin) if is_foreign => Some((404, "NOT_FOUND")),
        _ => None,
    }
}

/// Calls each operation as each caller; returns the violations and the number of calls.
async fn violations(app: &TestApp, routes: &[Route]) -> (Vec<String>, usize) {
    let users = Users::create(app).await;
    let (mut found, mut calls) = (Vec::new(), 0);
    for route in routes {
        let id = match users.create_row(&route.path).await {
            Ok(id) => id,
            Err(unknown) => {
                found.push(unknown);
                continue;
            }
        };
        let path = route.at(&id);
        let mut anonymous = None;
        for caller in Caller::ALL {
            let response = users.call(caller, route, &path).await;
            calls += 1;
            let status = response.status.as_u16();
            let outcome = (status, response.body["error"]["code"].as_str().unwrap_or_default());
            let call = format!("{} {} by {caller:?}: {outcome:?}", route.method, route.path);
            match expected_rejection(caller, route) {
                Some(expected) if outcome != expected => found.push(format!("{call} instead of {expected:?}")),
                Some(_) => {}
                // A public operation returns the same status to each caller.
                None if route.requires() == "public" => {
                    let first = *anonymous.get_or_insert(status);
                    if status != first {
                        found.push(format!("{call} instead of {first} for every caller"));
                    }
                }
                None if matches!(status, 401 | 403) || status == 500 => found.push(call.clone()),
                None if caller == Caller::Owner && !(response.status.is_success() || matches!(status, 409 | 503)) => {
                    found.push(format!("{call}, although the row is the owner's"));
                }
                None => {}
            }
            let is_owner = matches!(caller, Caller::Owner | Caller::Forged);
            if !is_owner
                && (response.body.to_string().contains(SECRET) || format!("{:?}", response.headers).contains(SECRET))
            {
                found.push(format!("{call} shows data of the owner"));
            }
        }
    }
    (found, calls)
}

async fn every_operation_enforces_its_requirement(app: &TestApp) {
    let routes = routes(&description(app).await);
    let (found, calls) = violations(app, &routes).await;
    println!("authorization matrix: {} operations x {} callers = {calls} calls", routes.len(), Caller::ALL.len());
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(calls, routes.len() * Caller::ALL.len());
}

/// A negative control: the matrix finds a route that requires less or more than the description says, one that shows
/// data of another user, and one with an unknown kind of id.
async fn the_matrix_finds_a_wrong_requirement(app: &TestApp) {
    let mut description = description(app).await;
    let wrong = [
        ("/api/health", "verified"),
        ("/api/users/me", "verified"),
        ("/api/chat/conversations", "login"),
        ("/api/progress/badges", "public"),
        ("/api/progress/history", "admin"),
        ("/api/progress/statistics", "public"),
    ];
    for (path, requires) in wrong {
        description["paths"][path]["get"]["x-requires"] = json!(requires);
    }
    let operations = description["paths"].as_object_mut().unwrap();
    let moved = operations.remove("/api/progress/badges").unwrap();
    operations.insert("/api/progress/{unknown}".to_owned(), moved);
    let paths = wrong.map(|(path, _)| path.replace("badges", "{unknown}"));
    let mut routes = routes(&description);
    routes.retain(|route| route.method == reqwest::Method::GET && paths.contains(&route.path));
    let (found, _) = violations(app, &routes).await;
    for path in &paths {
        assert!(found.iter().any(|violation| violation.contains(path.as_str())), "{path}: {found:#?}");
    }
}
