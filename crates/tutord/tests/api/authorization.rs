//! Who may call what: each operation of the API's description, called by everyone who might.
//!
//! What an operation requires is read from its `x-requires`; an operation that takes an id needs to be known here, with
//! what the id names. So a route can't be added without being tested.

use std::time::Duration;

use reqwest::header::COOKIE;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tutord_core::model::Role;

use crate::contract::{Route, description, routes};
use crate::exercises::{load_catalogue, written};
use crate::harness::{Answer, Client, TestApp, answer};
use crate::process::execute;

crate::on_both!(everyone_may_do_what_they_may, a_wrong_description_is_found);

/// Stands in whatever the owner has; no one else is to see it.
const SECRET: &str = "xyzzy";

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Caller {
    Nobody,
    Garbage,
    Expired,
    Revoked,
    Deactivated,
    Unverified,
    /// With the cookies of a log-in, and without its CSRF token.
    Forged,
    OtherStudent,
    Admin,
    /// Last: a call may delete what the others called for.
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
struct Cast<'a> {
    app: &'a TestApp,
    owner: Client<'a>,
    other: Client<'a>,
    unverified: Client<'a>,
    deactivated: Client<'a>,
    admin: Client<'a>,
}

impl<'a> Cast<'a> {
    async fn new(app: &'a TestApp) -> Self {
        load_catalogue(app).await;
        let owner = app.student(&format!("owner-{SECRET}")).await;
        owner
            .put("/api/users/me", json!({"name": "Owner", "bio": SECRET, "career_goals": SECRET.repeat(2)}))
            .await
            .ok();
        let deactivated = app.student("deactivated").await;
        let sql = "UPDATE users SET is_active = FALSE WHERE email = 'deactivated@example.com'";
        execute(&app.app.config.database.url(), sql).await;
        Self {
            app,
            owner,
            other: app.student("other").await,
            unverified: app.user("unverified", Role::Student, false).await,
            deactivated,
            admin: app.user("admin", Role::Admin, true).await,
        }
    }

    /// What the id in a path names: something of the owner's, made for this operation.
    async fn resource(&self, path: &str) -> Result<String, String> {
        let id = if path.starts_with("/api/chat/conversations/{id}") {
            let id = self.owner.talk(SECRET).await;
            if path.ends_with("/retry") {
                // The owner has something to ask again for.
                self.app.model.next(testbed::model::Behaviour::Fail(400, None));
                let body = json!({"message": SECRET, "conversation_id": id});
                self.owner.post("/api/chat/message", body).await.has(503);
            }
            json!(id)
        } else if path.starts_with("/api/exercises/{id}") {
            self.app.model.next(written(SECRET));
            let generated = self.owner.post("/api/exercises/generate", json!({})).await.has(201).body;
            generated["exercise"]["id"].clone()
        } else if path.contains('{') {
            return Err(format!("{path}: the matrix does not know what its id names"));
        } else {
            Value::Null
        };
        Ok(id.to_string())
    }

    /// A call with a session of its own: it may end it.
    async fn call(&self, caller: Caller, route: &Route, path: &str) -> Answer {
        let session = async |client: &Client<'_>| self.app.session(client.user.id, Duration::from_secs(3_600)).await;
        let token = match caller {
            Caller::Nobody => None,
            Caller::Garbage => Some("garbage".to_owned()),
            Caller::Expired => Some(self.app.session(self.owner.user.id, Duration::ZERO).await),
            Caller::Revoked => {
                let token = session(&self.owner).await;
                let hash = Sha256::digest(token.as_bytes()).into();
                let identity = self.app.app.store.identity(&hash).await.unwrap().unwrap();
                self.app.app.store.revoke_session(identity.user_id, identity.session_id).await.unwrap();
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
        answer(request).await
    }
}

/// The status and code that a call must be refused with, or `None` where it must not be refused.
fn refusal(caller: Caller, route: &Route) -> Option<(u16, &'static str)> {
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

/// Calls each operation as everyone; what was not as it should be, and how many calls were made.
async fn violations(app: &TestApp, routes: &[Route]) -> (Vec<String>, usize) {
    let cast = Cast::new(app).await;
    let (mut found, mut calls) = (Vec::new(), 0);
    for route in routes {
        let id = match cast.resource(&route.path).await {
            Ok(id) => id,
            Err(unknown) => {
                found.push(unknown);
                continue;
            }
        };
        let path = route.at(&id);
        let mut anonymous = None;
        for caller in Caller::ALL {
            let answer = cast.call(caller, route, &path).await;
            calls += 1;
            let status = answer.status.as_u16();
            let answered = (status, answer.body["error"]["code"].as_str().unwrap_or_default());
            let call = format!("{} {} by {caller:?}: {answered:?}", route.method, route.path);
            match refusal(caller, route) {
                Some(due) if answered != due => found.push(format!("{call} instead of {due:?}")),
                Some(_) => {}
                // Public is what answers everyone alike.
                None if route.requires() == "public" => {
                    let first = *anonymous.get_or_insert(status);
                    if status != first {
                        found.push(format!("{call} instead of {first} for everyone"));
                    }
                }
                None if matches!(status, 401 | 403) || status == 500 => found.push(call.clone()),
                None if caller == Caller::Owner && !(answer.status.is_success() || matches!(status, 409 | 503)) => {
                    found.push(format!("{call}, though it is the owner's"));
                }
                None => {}
            }
            let is_owner = matches!(caller, Caller::Owner | Caller::Forged);
            if !is_owner
                && (answer.body.to_string().contains(SECRET) || format!("{:?}", answer.headers).contains(SECRET))
            {
                found.push(format!("{call} shows what is the owner's"));
            }
        }
    }
    (found, calls)
}

async fn everyone_may_do_what_they_may(app: &TestApp) {
    let routes = routes(&description(app).await);
    let (found, calls) = violations(app, &routes).await;
    println!("authorization matrix: {} operations x {} callers = {calls} calls", routes.len(), Caller::ALL.len());
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(calls, routes.len() * Caller::ALL.len());
}

/// The matrix can fail: it finds a route that requires less, or more, than its description says, one that shows what is
/// another's, and one whose id it does not know.
async fn a_wrong_description_is_found(app: &TestApp) {
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
