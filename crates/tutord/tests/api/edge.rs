use reqwest::Method;
use serde_json::json;

use crate::harness::{Needs, TestApp, answer, is_protected, refuses_bad_bodies};

crate::on_both!(
    unknown_paths_and_methods_have_the_errors_shape,
    every_answer_carries_the_security_headers,
    request_ids_are_echoed_when_sane,
    only_listed_origins_may_call("--cors-origins", "https://tutor.example,http://localhost:5173"),
    the_frontends_origin_may_call("--public-url", "https://tutor.example/app"),
    large_answers_are_compressed,
    unchanged_answers_are_not_sent_again,
    every_json_route_refuses_what_is_no_json,
    every_protected_route_is_protected,
    a_body_that_does_not_come_is_not_waited_for("--request-timeout-seconds", "1"),
    ids_in_paths_are_positive_integers,
    the_api_describes_itself,
);

async fn unknown_paths_and_methods_have_the_errors_shape(app: &TestApp) {
    for path in ["/nothing", "/api/nothing", "/api/chat/nothing/here"] {
        app.get(path).await.fails(404, "NOT_FOUND");
    }
    app.post("/api/health", json!({})).await.fails(405, "METHOD_NOT_ALLOWED");
    answer(app.request(Method::DELETE, "/api/auth/login")).await.fails(405, "METHOD_NOT_ALLOWED");
}

async fn every_answer_carries_the_security_headers(app: &TestApp) {
    for path in ["/health", "/nothing", "/api/users/me"] {
        let headers = app.get(path).await.headers;
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
        assert!(!headers.contains_key("strict-transport-security"), "without TLS");
    }
}

async fn request_ids_are_echoed_when_sane(app: &TestApp) {
    let ask = async |id: &str| {
        let answer = answer(app.request(Method::GET, "/health").header("x-request-id", id)).await;
        answer.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask("abc-123_4.5").await, "abc-123_4.5");
    for odd in ["with space", &"x".repeat(65), "a\"b"] {
        let given = ask(odd).await;
        assert_ne!(given, odd);
        assert_eq!(given.len(), 32);
    }
}

/// What a preflight from an origin is answered in `Access-Control-Allow-Origin`.
async fn allowed(app: &TestApp, origin: &str) -> Option<String> {
    let preflight = app
        .request(Method::OPTIONS, "/api/auth/login")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-csrf-token");
    let headers = answer(preflight).await.headers;
    assert_eq!(headers["access-control-allow-credentials"], "true");
    headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned())
}

async fn only_listed_origins_may_call(app: &TestApp) {
    for origin in ["https://tutor.example", "http://localhost:5173"] {
        assert_eq!(allowed(app, origin).await.as_deref(), Some(origin));
    }
    for origin in ["https://evil.example", "http://localhost:3000", "null"] {
        assert_eq!(allowed(app, origin).await, None);
    }
}

async fn the_frontends_origin_may_call(app: &TestApp) {
    assert_eq!(allowed(app, "https://tutor.example").await.as_deref(), Some("https://tutor.example"));
    assert_eq!(allowed(app, "http://tutor.example").await, None);
}

async fn large_answers_are_compressed(app: &TestApp) {
    let request = app.request(Method::GET, "/api/openapi.json").header("accept-encoding", "gzip");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
}

async fn every_json_route_refuses_what_is_no_json(app: &TestApp) {
    let ada = app.student("ada").await;
    let id = ada.talk("hello").await;
    for (method, path) in [
        (Method::POST, "/api/auth/register".to_owned()),
        (Method::POST, "/api/auth/login".to_owned()),
        (Method::POST, "/api/auth/verify-email".to_owned()),
        (Method::POST, "/api/auth/resend-verification".to_owned()),
        (Method::POST, "/api/auth/password-reset".to_owned()),
        (Method::POST, "/api/auth/password-reset/confirm".to_owned()),
        (Method::PUT, "/api/users/me".to_owned()),
        (Method::PUT, "/api/users/me/preferences".to_owned()),
        (Method::POST, "/api/users/onboarding".to_owned()),
        (Method::POST, "/api/chat/conversations".to_owned()),
        (Method::PATCH, format!("/api/chat/conversations/{id}")),
        (Method::POST, "/api/chat/message".to_owned()),
        (Method::POST, "/api/chat/stream".to_owned()),
    ] {
        refuses_bad_bodies(&ada, method, &path).await;
    }
}

async fn every_protected_route_is_protected(app: &TestApp) {
    let profile = json!({"bio": "x"});
    let message = json!({"message": "hi"});
    for (needs, method, path, body) in [
        (Needs::LogIn, Method::GET, "/api/auth/me", None),
        (Needs::LogIn, Method::POST, "/api/auth/logout", None),
        (Needs::LogIn, Method::GET, "/api/users/me", None),
        (Needs::LogIn, Method::GET, "/api/users/me/profile", None),
        (Needs::LogIn, Method::GET, "/api/v1/users/me", None),
        (Needs::LogIn, Method::GET, "/api/users/onboarding/questions", None),
        (Needs::LogIn, Method::GET, "/api/users/onboarding/status", None),
        (Needs::LogIn, Method::GET, "/api/users/me/preferences", None),
        (Needs::VerifiedEmail, Method::GET, "/api/users/me/progress", None),
        (Needs::VerifiedEmail, Method::PUT, "/api/users/me", Some(&profile)),
        (Needs::VerifiedEmail, Method::PUT, "/api/users/me/preferences", Some(&profile)),
        (Needs::VerifiedEmail, Method::POST, "/api/users/onboarding", Some(&profile)),
        (Needs::VerifiedEmail, Method::GET, "/api/chat/conversations", None),
        (Needs::VerifiedEmail, Method::POST, "/api/chat/conversations", Some(&profile)),
        (Needs::VerifiedEmail, Method::GET, "/api/chat/conversations/1", None),
        (Needs::VerifiedEmail, Method::PATCH, "/api/chat/conversations/1", Some(&profile)),
        (Needs::VerifiedEmail, Method::DELETE, "/api/chat/conversations/1", None),
        (Needs::VerifiedEmail, Method::POST, "/api/chat/conversations/1/retry", None),
        (Needs::VerifiedEmail, Method::POST, "/api/chat/message", Some(&message)),
        (Needs::VerifiedEmail, Method::POST, "/api/chat/stream", Some(&message)),
    ] {
        is_protected(app, needs, method, path, body.cloned()).await;
    }
}

async fn a_body_that_does_not_come_is_not_waited_for(app: &TestApp) {
    let ada = app.student("ada").await;
    // The second waits for a model, and has no limit of its own otherwise.
    for path in ["/api/chat/conversations", "/api/chat/message"] {
        let never = futures_util::stream::pending::<std::io::Result<axum::body::Bytes>>();
        let request = ada.request(Method::POST, path).header("content-type", "application/json");
        let request = request.body(reqwest::Body::wrap_stream(never));
        answer(request).await.fails(503, "OVERLOADED");
    }
}

async fn ids_in_paths_are_positive_integers(app: &TestApp) {
    let ada = app.student("ada").await;
    for id in ["0", "-1", "abc", "1.5", "99999999999999999999", "%27"] {
        let path = format!("/api/chat/conversations/{id}");
        assert_eq!(ada.get(&path).await.refuses("id"), "id must be a positive integer");
        ada.delete(&path).await.refuses("id");
        ada.patch(&path, json!({"title": "x"})).await.refuses("id");
        ada.post(&format!("{path}/retry"), json!({})).await.refuses("id");
    }
}

async fn the_api_describes_itself(app: &TestApp) {
    let description = app.get("/api/openapi.json").await.ok().body;
    let paths = description["paths"].as_object().unwrap();
    for path in ["/api/auth/login", "/api/users/me", "/api/chat/conversations/{id}", "/api/chat/stream", "/api/health"]
    {
        assert!(paths.contains_key(path), "{path}");
    }
    let page = app.get("/api/docs/").await.ok();
    assert!(page.body.as_str().unwrap().contains("swagger-ui"));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("http"), "no script from elsewhere: {policy}");
}

async fn unchanged_answers_are_not_sent_again(app: &TestApp) {
    let ada = app.student("ada").await;
    let ask = async |path: &str, tag: &str| answer(ada.request(Method::GET, path).header("if-none-match", tag)).await;
    for path in ["/api/users/me", "/api/chat/conversations", "/api/exercises/history", "/api/progress"] {
        let first = ada.get(path).await.ok();
        let tag = first.headers["etag"].to_str().unwrap();
        assert_eq!(first.headers["cache-control"], "private, no-cache", "{path}");
        let same = ask(path, tag).await.has(304);
        assert_eq!((&same.headers["etag"], same.body.as_str()), (&first.headers["etag"], Some("")), "{path}");
        ask(path, "\"another\"").await.ok();
    }
    let before = ada.get("/api/users/me").await.ok();
    let tag = before.headers["etag"].to_str().unwrap();
    ada.put("/api/users/me", json!({"name": "Ada L."})).await.ok();
    let after = ask("/api/users/me", tag).await.ok();
    assert_ne!(after.headers["etag"], before.headers["etag"]);
    // Neither streams, nor errors, nor what is the same for everybody.
    for path in ["/api/progress/export", "/api/exercises/99999", "/api/health"] {
        assert!(!ada.get(path).await.headers.contains_key("etag"), "{path}");
    }
}
