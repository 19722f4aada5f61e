use reqwest::Method;
use serde_json::json;

use crate::harness::{TestApp, answer};

crate::on_both!(
    unknown_paths_and_methods_have_the_errors_shape,
    every_answer_carries_the_security_headers,
    request_ids_are_echoed_when_sane,
    only_listed_origins_may_call("--cors-origins", "https://tutor.example,http://localhost:5173"),
    the_frontends_origin_may_call("--public-url", "https://tutor.example/app"),
    large_answers_are_compressed,
    clients_of_one_half_take_compressed_answers,
    unchanged_answers_are_not_sent_again,
    a_body_that_does_not_come_is_not_waited_for("--request-timeout-seconds", "1"),
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

/// The tag of compressed bytes is another: it shows what the test's own client was sent.
async fn clients_of_one_half_take_compressed_answers(app: &TestApp) {
    let ada = app.student("ada").await;
    let tag = ada.get("/api/users/me").await.ok().headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag.ends_with("-gzip\""), app.compressed, "{tag}");
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
