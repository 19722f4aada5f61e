use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::support::fixtures::exercises::exercise_path;
use crate::support::fixtures::{PASSWORD, UNKNOWN_ID, log_in, register};
use crate::support::wait::wait_for;
use crate::support::{TestApp, fetch};

crate::on_both!(
    an_unknown_path_or_method_gets_an_error_of_the_contract,
    every_response_has_the_security_headers,
    a_valid_request_id_is_returned,
    only_listed_origins_pass_the_cors_check(cors_origins("https://tutor.example,http://localhost:5173")),
    the_origin_of_the_public_url_passes_the_cors_check(public_url("https://tutor.example/app")),
    a_large_response_is_compressed,
    the_test_client_accepts_compressed_responses_on_postgres,
    an_etag_depends_on_the_content_encoding,
    an_unknown_method_or_path_creates_no_metric_series,
    a_long_head_gets_an_error_of_the_contract,
    an_invalid_head_is_rejected,
    an_encoded_body_is_rejected,
    a_response_is_not_cacheable_unless_declared,
    an_unimplemented_route_is_not_a_failure,
    a_repeated_parameter_is_rejected,
    a_long_parameter_is_truncated_in_the_error,
    an_id_has_one_valid_spelling,
    an_unchanged_response_is_a_304,
    an_error_or_stream_has_no_etag,
    a_body_that_does_not_arrive_times_out(request_timeout_seconds(1)),
    the_description_has_a_page,
    an_invisible_text_is_rejected,
    an_invisible_character_within_a_visible_text_is_accepted,
    a_title_ends_between_grapheme_clusters,
);

async fn an_unknown_path_or_method_gets_an_error_of_the_contract(app: &TestApp) {
    for path in ["/nothing", "/api/nothing", "/api/chat/nothing/here"] {
        app.get(path).await.assert_error(404, "NOT_FOUND");
    }
    app.post("/api/health", json!({})).await.assert_error(405, "METHOD_NOT_ALLOWED");
    fetch(app.request(Method::DELETE, "/api/auth/login")).await.assert_error(405, "METHOD_NOT_ALLOWED");
}

async fn every_response_has_the_security_headers(app: &TestApp) {
    for path in ["/health", "/nothing", "/api/users/me"] {
        let headers = app.get(path).await.headers;
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["x-frame-options"], "DENY");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert_eq!(headers["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
        assert!(!headers.contains_key("strict-transport-security"), "without TLS");
    }
}

async fn a_valid_request_id_is_returned(app: &TestApp) {
    let returned_id = async |id: &str| {
        let response = fetch(app.request(Method::GET, "/health").header("x-request-id", id)).await;
        response.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(returned_id("abc-123_4.5").await, "abc-123_4.5");
    for invalid in ["with space", &"x".repeat(65), "a\"b"] {
        let generated = returned_id(invalid).await;
        assert_ne!(generated, invalid);
        assert_eq!(generated.len(), 32);
    }
}

/// Returns the `Access-Control-Allow-Origin` of the response to a preflight request from an origin.
async fn allowed_origin(app: &TestApp, origin: &str) -> Option<String> {
    let preflight = app
        .request(Method::OPTIONS, "/api/auth/login")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "content-type,x-csrf-token");
    let headers = fetch(preflight).await.headers;
    assert_eq!(headers["access-control-allow-credentials"], "true");
    headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap().to_owned())
}

async fn only_listed_origins_pass_the_cors_check(app: &TestApp) {
    for origin in ["https://tutor.example", "http://localhost:5173"] {
        assert_eq!(allowed_origin(app, origin).await.as_deref(), Some(origin));
    }
    for origin in ["https://evil.example", "http://localhost:3000", "null"] {
        assert_eq!(allowed_origin(app, origin).await, None);
    }
}

async fn the_origin_of_the_public_url_passes_the_cors_check(app: &TestApp) {
    assert_eq!(allowed_origin(app, "https://tutor.example").await.as_deref(), Some("https://tutor.example"));
    assert_eq!(allowed_origin(app, "http://tutor.example").await, None);
}

async fn a_large_response_is_compressed(app: &TestApp) {
    let client = reqwest::Client::builder().gzip(false).build().unwrap();
    let sent = async |codings: &str| {
        let request = client.get(format!("{}/api/openapi.json", app.base_url)).header("accept-encoding", codings);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{codings}");
        assert!(response.headers().get_all("vary").iter().any(|name| name == "accept-encoding"), "{codings}");
        response.headers().get("content-encoding").map(|coding| coding.to_str().unwrap().to_owned())
    };
    for codings in ["gzip", "GZIP", "br, gzip;q=0.5", "*", "gzip, identity;q=0", "*;q=0, gzip"] {
        assert_eq!(sent(codings).await.as_deref(), Some("gzip"), "{codings}");
    }
    for codings in
        ["", "br", "gzip;q=0", "gzip;q=0.0, *", "identity", "identity;q=0", "*;q=0", "gzip;q=0, identity;q=0"]
    {
        assert_eq!(sent(codings).await, None, "{codings}");
    }
}

/// The etag shows whether the server compressed the response.
async fn the_test_client_accepts_compressed_responses_on_postgres(app: &TestApp) {
    let ada = app.student("ada").await;
    let tag = ada.get("/api/users/me").await.assert_ok().headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag.ends_with("-gzip\""), app.accepts_compressed_responses(), "{tag}");
}

async fn an_etag_depends_on_the_content_encoding(app: &TestApp) {
    let ada = app.student("ada").await;
    let client = reqwest::Client::builder().gzip(false).build().unwrap();
    let get = async |codings: &str, known: &str| {
        let request = client.get(format!("{}/api/users/me", app.base_url)).bearer_auth(&ada.token);
        request.header("accept-encoding", codings).header("if-none-match", known).send().await.unwrap()
    };
    let mut tags = Vec::new();
    for codings in ["gzip", "GZIP", "gzip;q=0", "br"] {
        let response = get(codings, "\"none\"").await;
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(response.headers().contains_key("content-encoding"), tag.ends_with("-gzip\""), "{codings}");
        let same = get(codings, &tag).await;
        assert_eq!((same.status().as_u16(), same.headers()["etag"].to_str().unwrap()), (304, tag.as_str()));
        assert!(!same.headers().contains_key("content-encoding"));
        tags.push(tag);
    }
    assert!(tags[0] == tags[1] && tags[2] == tags[3] && tags[0] != tags[2], "{tags:?}");
    assert_eq!(get("br", &tags[0]).await.status(), 200, "other bytes");
}

async fn an_unknown_method_or_path_creates_no_metric_series(app: &TestApp) {
    let series = async || {
        let response = app.get("/metrics").await.assert_ok();
        let lines = response.text().lines().filter(|line| line.starts_with("tutord_http_"));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    let send_unusual_requests = async |number: usize| {
        let method = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
        for path in ["/api/health", &format!("/api/chat/conversations/{UNKNOWN_ID}")] {
            fetch(app.request(method.clone(), path)).await.assert_error(405, "METHOD_NOT_ALLOWED");
        }
        fetch(app.request(Method::DELETE, "/api/auth/login")).await.assert_error(405, "METHOD_NOT_ALLOWED");
        app.get(&format!("/api/nothing/{number}")).await.assert_error(404, "NOT_FOUND");
        app.get(&format!("/api/exercises/{number}")).await.assert_error(401, "UNAUTHENTICATED");
        let named = app.request(Method::GET, "/health").header("x-request-id", number).header("user-agent", number);
        fetch(named.header("host", format!("host-{number}"))).await.assert_ok();
    };
    send_unusual_requests(0).await;
    let before = wait_for_series(&series, "unmatched").await;
    for number in 1..50 {
        send_unusual_requests(number).await;
    }
    // A snapshot with this request has all earlier ones.
    app.get("/live").await.assert_ok();
    let after = wait_for_series(&series, "GET /live").await;
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line) && !line.contains("/live")).collect();
    assert!(new.iter().all(|line| line.contains("GET /metrics")), "{new:?}");
    assert!(!after.iter().any(|line| line.contains("M1") || line.contains("DELETE")));
}

/// Waits until the metrics contain a route: the response may be a second old.
async fn wait_for_series(series: &impl AsyncFn() -> Vec<String>, route: &str) -> Vec<String> {
    wait_for(async || Some(series().await).filter(|lines| lines.iter().any(|line| line.contains(route)))).await
}

async fn a_long_head_gets_an_error_of_the_contract(app: &TestApp) {
    let long = format!("/api/health?padding={}", "x".repeat(9_000));
    app.get(&long).await.assert_error(414, "URI_TOO_LONG");
    let padded = app.request(Method::GET, "/api/health").header("x-padding", "x".repeat(40_000));
    fetch(padded).await.assert_error(431, "HEADERS_TOO_LARGE");
}

/// Sends these bytes; returns the status of the response.
async fn raw_status(app: &TestApp, head: &str) -> String {
    let mut stream = TcpStream::connect(app.base_url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

async fn an_invalid_head_is_rejected(app: &TestApp) {
    let json = "Content-Type: application/json";
    for (head, status) in [
        ("GET /health HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "200"),
        ("GET /health HTTP/1.0\r\n\r\n".to_owned(), "200"),
        ("GET /health HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), "400"),
        (
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: a\r\n{json}\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
            ),
            "400",
        ),
        // The head announces a body that is too long: the server sends no `100 Continue`.
        (
            format!(
                "POST /api/auth/login HTTP/1.1\r\nHost: a\r\n{json}\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
            ),
            "413",
        ),
    ] {
        assert_eq!(raw_status(app, &head).await, status, "{head}");
    }
}

async fn an_encoded_body_is_rejected(app: &TestApp) {
    let log_in = |coding: &'static str, body: &'static str| {
        let request = app.request(Method::POST, "/api/auth/login").header("content-encoding", coding);
        fetch(request.header("content-type", "application/json").body(body))
    };
    let rejected = log_in("gzip", "{}").await;
    assert!(rejected.assert_error(415, "UNSUPPORTED_MEDIA_TYPE").contains("Content-Encoding"));
    log_in("identity", "{}").await.assert_invalid_field("email");
    log_in("identity", "\u{feff}{}").await.assert_invalid_field("email");
    assert_eq!(log_in("identity", "null").await.assert_invalid_field("body"), "invalid type: null, expected an object");
}

async fn a_response_is_not_cacheable_unless_declared(app: &TestApp) {
    let registered = register(app, "ada@example.com").await.assert_status(201);
    let logged_in = log_in(app, "ada@example.com", PASSWORD).await.assert_ok();
    for response in [registered, logged_in, app.get("/api/nothing").await, app.get("/api/users/me").await] {
        assert_eq!(response.headers["cache-control"], "no-store");
    }
}

async fn an_unimplemented_route_is_not_a_failure(app: &TestApp) {
    app.get("/api/auth/oauth/github").await.assert_error(501, "NOT_IMPLEMENTED");
    assert_eq!(app.failed_requests(), 0);
}

async fn a_repeated_parameter_is_rejected(app: &TestApp) {
    let ada = app.student("ada").await;
    for (path, name, value) in
        [("/api/chat/conversations", "limit", "1"), ("/api/progress/leaderboard", "period", "all")]
    {
        let message = format!("{name} must be given once");
        assert_eq!(ada.get(&format!("{path}?{name}={value}&{name}={value}")).await.assert_invalid_field(name), message);
    }
    ada.get("/api/chat/conversations?unknown=1&unknown=2").await.assert_ok();
}

async fn a_long_parameter_is_truncated_in_the_error(app: &TestApp) {
    let ada = app.student("ada").await;
    let name = "n".repeat(5_000);
    let rejected = ada.get(&format!("/api/chat/conversations?{name}=%00")).await;
    assert!(rejected.body.to_string().len() < 1_000, "{}", rejected.body);
}

async fn an_id_has_one_valid_spelling(app: &TestApp) {
    let ada = app.student("ada").await;
    let conversation = ada.start_conversation("hello").await;
    let id = conversation.id;
    ada.get(&conversation.path()).await.assert_ok();
    for spelling in [format!("+{id}"), format!("0{id}"), format!("{id}.0"), format!("%20{id}")] {
        ada.get(&format!("/api/chat/conversations/{spelling}")).await.assert_invalid_field("id");
    }
}

async fn a_body_that_does_not_arrive_times_out(app: &TestApp) {
    let ada = app.student("ada").await;
    // The second route waits for the model, which has another timeout.
    for path in ["/api/chat/conversations", "/api/chat/message"] {
        let never = futures_util::stream::pending::<std::io::Result<axum::body::Bytes>>();
        let request = ada.request(Method::POST, path).header("content-type", "application/json");
        let request = request.body(reqwest::Body::wrap_stream(never));
        fetch(request).await.assert_error(408, "REQUEST_TIMEOUT");
    }
}

async fn the_description_has_a_page(app: &TestApp) {
    let description = app.get("/api/openapi.json").await.assert_ok().body;
    let paths = description["paths"].as_object().unwrap();
    for path in ["/api/auth/login", "/api/users/me", "/api/chat/conversations/{id}", "/api/chat/stream", "/api/health"]
    {
        assert!(paths.contains_key(path), "{path}");
    }
    let page = app.get("/api/docs/").await.assert_ok();
    assert!(page.text().contains("swagger-ui"));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("http"), "no script of another origin: {policy}");
}

async fn an_unchanged_response_is_a_304(app: &TestApp) {
    let ada = app.student("ada").await;
    let get_unless =
        async |path: &str, tag: &str| fetch(ada.request(Method::GET, path).header("if-none-match", tag)).await;
    for path in ["/api/users/me", "/api/chat/conversations", "/api/exercises/history", "/api/progress"] {
        let first = ada.get(path).await.assert_ok();
        let tag = first.headers["etag"].to_str().unwrap();
        assert_eq!(first.headers["cache-control"], "private, no-cache", "{path}");
        let same = get_unless(path, tag).await.assert_status(304);
        assert_eq!((&same.headers["etag"], same.body.as_str()), (&first.headers["etag"], Some("")), "{path}");
        get_unless(path, "\"another\"").await.assert_ok();
    }
    let before = ada.get("/api/users/me").await.assert_ok();
    let tag = before.headers["etag"].to_str().unwrap();
    ada.put("/api/users/me", json!({"name": "Ada L."})).await.assert_ok();
    let after = get_unless("/api/users/me", tag).await.assert_ok();
    assert_ne!(after.headers["etag"], before.headers["etag"]);
}

/// A response that is the same for every caller has no etag either.
async fn an_error_or_stream_has_no_etag(app: &TestApp) {
    let ada = app.student("ada").await;
    let unknown = exercise_path(UNKNOWN_ID);
    for path in ["/api/progress/export", &unknown, "/api/health"] {
        assert!(!ada.get(path).await.headers.contains_key("etag"), "{path}");
    }
}

async fn an_invisible_text_is_rejected(app: &TestApp) {
    let exercise_id = app.load_catalogue().await[0];
    let ada = app.student("ada").await;
    let conversation = ada.start_conversation("hello").await.path();
    let learning = |field: &str, text: &str| {
        let mut fields = json!({
            "programming_language": "rust", "skill_level": "beginner", "career_goals": "Become a developer",
            "learning_style": "reading", "time_commitment": "weekends",
        });
        fields[field] = json!(text);
        fields
    };
    let prompts = app.model.received().len();
    // The text satisfies all lower bounds, so that no other rule rejects it.
    for character in
        ['\u{200b}', '\u{202e}', '\u{2060}', '\u{feff}', '\u{3164}', '\u{ffa0}', '\u{2800}', '\u{fe0f}', '\u{e0041}']
    {
        let text = character.to_string().repeat(12);
        let register = json!({"email": "new@example.com", "password": PASSWORD, "name": text});
        app.post("/api/auth/register", register).await.assert_invalid_field("name");
        for field in ["name", "programming_language", "career_goals", "learning_style", "time_commitment"] {
            ada.put("/api/users/me", json!({field: text})).await.assert_invalid_field(field);
        }
        for field in ["programming_language", "career_goals", "learning_style", "time_commitment"] {
            ada.put("/api/users/me/preferences", json!({field: text})).await.assert_invalid_field(field);
            ada.post("/api/users/onboarding", learning(field, &text)).await.assert_invalid_field(field);
        }
        ada.post("/api/chat/conversations", json!({"title": text})).await.assert_invalid_field("title");
        ada.patch(&conversation, json!({"title": text})).await.assert_invalid_field("title");
        for path in ["message", "stream"] {
            ada.post(&format!("/api/chat/{path}"), json!({"message": text})).await.assert_invalid_field("message");
        }
        ada.submit_solution(exercise_id, json!({"solution": format!("\n{text} ")}))
            .await
            .assert_invalid_field("solution");
        ada.post("/api/exercises/generate", json!({"topic": text})).await.assert_invalid_field("topic");
        ada.post("/api/progress/calculate-skill-level", json!({"topic": text})).await.assert_invalid_field("topic");
    }
    assert_eq!(app.model.received().len(), prompts, "no request to the model");
}

async fn an_invisible_character_within_a_visible_text_is_accepted(app: &TestApp) {
    let ada = app.student("ada").await;
    let text = format!("\u{200b}{}", "x".repeat(12));
    ada.send_message(json!({"message": text})).await.assert_ok();
    ada.put("/api/users/me", json!({"name": "\u{202e}Ada"})).await.assert_ok();
}

/// A preview ends between grapheme clusters too.
async fn a_title_ends_between_grapheme_clusters(app: &TestApp) {
    let ada = app.student("ada").await;
    let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466}";
    for (message, title, preview) in [
        (family.repeat(20), family.repeat(8), family.repeat(17)),
        (format!("{}e\u{301}t", "x".repeat(59)), "x".repeat(59), format!("{}e\u{301}t", "x".repeat(59))),
        (format!("{}\u{1f1e9}\u{1f1ea}", "x".repeat(119)), "x".repeat(60), "x".repeat(119)),
    ] {
        // The preview is that of the newest message: the student's, because the model returns no reply.
        app.model.next(testbed::model::Behaviour::Fail(400, None));
        ada.send_message(json!({"message": message})).await.assert_status(503);
        let newest = ada.get("/api/chat/conversations").await.assert_ok().body["conversations"][0].clone();
        assert_eq!((&newest["title"], &newest["last_message_preview"]), (&json!(title), &json!(preview)));
    }
}
