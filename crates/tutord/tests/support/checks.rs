//! Assertions that hold for every route of a kind, and the comparison with generated files.

use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::fixtures::users::UserBuilder;
use super::{TestApp, TestClient, fetch};

/// The requirement of a protected route.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Requirement {
    Login,
    VerifiedEmail,
}

/// Asserts that a route rejects requests without a token, with an invalid or expired one, and, where it requires a
/// verified address, those of a user without one.
pub(crate) async fn assert_protected(
    app: &TestApp,
    requirement: Requirement,
    method: Method,
    path: &str,
    body: Option<Value>,
) {
    let request = |token: Option<&str>| {
        let mut request = app.request(method.clone(), path);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        match &body {
            Some(body) => request.json(body),
            None => request,
        }
    };
    fetch(request(None)).await.assert_error(401, "UNAUTHENTICATED");
    fetch(request(Some("nonsense"))).await.assert_error(401, "UNAUTHENTICATED");
    let mut user = app.user(&UserBuilder::random_name());
    if requirement == Requirement::VerifiedEmail {
        user = user.unverified();
    }
    let user = user.create().await;
    let expired = app.create_session(user.user_id, Duration::ZERO).await;
    fetch(request(Some(&expired))).await.assert_error(401, "TOKEN_EXPIRED");
    if requirement == Requirement::VerifiedEmail {
        fetch(request(Some(&user.token))).await.assert_error(403, "EMAIL_NOT_VERIFIED");
    }
}

/// Asserts that a list rejects paging parameters that are out of bounds.
pub(crate) async fn assert_rejects_invalid_pages(client: &TestClient<'_>, path: &str, max: u32) {
    for limit in ["0", "-1", "1000000000", "abc", "", "1.5", &(max + 1).to_string()] {
        let message = format!("limit must be between 1 and {max}");
        assert_eq!(client.get(&format!("{path}?limit={limit}")).await.assert_invalid_field("limit"), message);
    }
    for offset in ["-1", "abc", "99999999999999999999"] {
        client.get(&format!("{path}?offset={offset}")).await.assert_invalid_field("offset");
    }
    for cursor in ["x", "", "AAAA", "%00"] {
        client.get(&format!("{path}?cursor={cursor}")).await.assert_invalid_field("cursor");
    }
    client.get(&format!("{path}?limit={max}&offset=1000000000")).await.assert_ok();
}

/// Asserts that a route rejects bodies that are not a JSON object.
pub(crate) async fn assert_rejects_invalid_bodies(
    client: &TestClient<'_>,
    method: Method,
    path: &str,
    is_optional: bool,
) {
    let request = |body: &'static str| client.request(method.clone(), path).body(body);
    let json = "application/json";
    fetch(request("{").header("content-type", json)).await.assert_error(400, "MALFORMED_JSON");
    if !is_optional {
        fetch(request("").header("content-type", json)).await.assert_error(400, "MALFORMED_JSON");
    }
    fetch(request("[]").header("content-type", json)).await.assert_invalid_field("body");
    fetch(request("{}")).await.assert_error(415, "UNSUPPORTED_MEDIA_TYPE");
    fetch(request("a=b").header("content-type", "application/x-www-form-urlencoded"))
        .await
        .assert_error(415, "UNSUPPORTED_MEDIA_TYPE");
    let large = format!(r#"{{"padding": "{}"}}"#, "x".repeat(1_100_000));
    let large = client.request(method.clone(), path).header("content-type", json).body(large);
    fetch(large).await.assert_error(413, "PAYLOAD_TOO_LARGE");
}

/// Asserts that a file of the repository equals what a test generated. Writes the new file into `target/tmp`.
pub(crate) fn assert_generated(file: &str, generated: &str) {
    let current = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    let current = std::fs::read_to_string(current).unwrap_or_default();
    let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Path::new(file).file_name().unwrap());
    std::fs::write(&new, generated).unwrap();
    for (generated, current) in generated.lines().zip(current.lines()) {
        assert_eq!(generated, current, "{file} is out of date; the new file is {}", new.display());
    }
    assert_eq!(generated.lines().count(), current.lines().count(), "{file}: the new file is {}", new.display());
}
