use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::harness::{TestApp, answer};

crate::on_both!(
    unknown_paths_and_methods_have_the_errors_shape,
    every_answer_carries_the_security_headers,
    request_ids_are_echoed_when_sane,
    only_listed_origins_may_call("--cors-origins", "https://tutor.example,http://localhost:5173"),
    the_frontends_origin_may_call("--public-url", "https://tutor.example/app"),
    large_answers_are_compressed,
    clients_of_one_half_take_compressed_answers,
    a_tag_is_that_of_the_bytes_that_are_sent,
    what_a_client_makes_up_is_no_series_of_its_own,
    a_long_head_is_refused_in_the_errors_shape,
    a_head_that_http_does_not_allow_is_refused,
    a_body_in_another_coding_is_refused,
    answers_are_not_kept_unless_they_say_so,
    a_parameter_that_is_repeated_names_itself,
    an_id_has_one_way_to_be_written,
    unchanged_answers_are_not_sent_again,
    a_body_that_does_not_come_is_not_waited_for("--request-timeout-seconds", "1"),
    the_api_describes_itself,
    texts_that_show_nothing_are_refused,
    titles_and_previews_end_between_clusters,
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
    let client = reqwest::Client::builder().gzip(false).build().unwrap();
    let sent = async |codings: &str| {
        let request = client.get(format!("{}/api/openapi.json", app.base)).header("accept-encoding", codings);
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

/// The tag of compressed bytes is another: it shows what the test's own client was sent.
async fn clients_of_one_half_take_compressed_answers(app: &TestApp) {
    let ada = app.student("ada").await;
    let tag = ada.get("/api/users/me").await.ok().headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(tag.ends_with("-gzip\""), app.compressed, "{tag}");
}

async fn a_tag_is_that_of_the_bytes_that_are_sent(app: &TestApp) {
    let ada = app.student("ada").await;
    let client = reqwest::Client::builder().gzip(false).build().unwrap();
    let ask = async |codings: &str, known: &str| {
        let request = client.get(format!("{}/api/users/me", app.base)).bearer_auth(&ada.token);
        request.header("accept-encoding", codings).header("if-none-match", known).send().await.unwrap()
    };
    let mut tags = Vec::new();
    for codings in ["gzip", "GZIP", "gzip;q=0", "br"] {
        let response = ask(codings, "\"none\"").await;
        let tag = response.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(response.headers().contains_key("content-encoding"), tag.ends_with("-gzip\""), "{codings}");
        let same = ask(codings, &tag).await;
        assert_eq!((same.status().as_u16(), same.headers()["etag"].to_str().unwrap()), (304, tag.as_str()));
        assert!(!same.headers().contains_key("content-encoding"));
        tags.push(tag);
    }
    assert!(tags[0] == tags[1] && tags[2] == tags[3] && tags[0] != tags[2], "{tags:?}");
    assert_eq!(ask("br", &tags[0]).await.status(), 200, "other bytes");
}

async fn what_a_client_makes_up_is_no_series_of_its_own(app: &TestApp) {
    let series = async || {
        let answer = app.get("/metrics").await.ok();
        let lines = answer.body.as_str().unwrap().lines().filter(|line| line.starts_with("tutord_http_"));
        lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    let made_up = async |number: usize| {
        let method = Method::from_bytes(format!("M{number}").as_bytes()).unwrap();
        for path in ["/api/health", "/api/chat/conversations/5"] {
            answer(app.request(method.clone(), path)).await.fails(405, "METHOD_NOT_ALLOWED");
        }
        answer(app.request(Method::DELETE, "/api/auth/login")).await.fails(405, "METHOD_NOT_ALLOWED");
        app.get(&format!("/api/nothing/{number}")).await.fails(404, "NOT_FOUND");
        app.get(&format!("/api/exercises/{number}")).await.fails(401, "UNAUTHENTICATED");
        let named = app.request(Method::GET, "/health").header("x-request-id", number).header("user-agent", number);
        answer(named.header("host", format!("host-{number}"))).await.ok();
    };
    made_up(0).await;
    let before = fresh(&series, "unmatched").await;
    for number in 1..50 {
        made_up(number).await;
    }
    // A snapshot that has this request has all before it.
    app.get("/live").await.ok();
    let after = fresh(&series, "GET /live").await;
    let new: Vec<_> = after.iter().filter(|line| !before.contains(line) && !line.contains("/live")).collect();
    assert!(new.iter().all(|line| line.contains("GET /metrics")), "{new:?}");
    assert!(!after.iter().any(|line| line.contains("M1") || line.contains("DELETE")));
}

/// The metrics, once they tell of a route: an answer may be a second old.
async fn fresh(series: &impl AsyncFn() -> Vec<String>, route: &str) -> Vec<String> {
    loop {
        let lines = series().await;
        if lines.iter().any(|line| line.contains(route)) {
            return lines;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn a_long_head_is_refused_in_the_errors_shape(app: &TestApp) {
    let long = format!("/api/health?padding={}", "x".repeat(9_000));
    app.get(&long).await.fails(414, "URI_TOO_LONG");
    let padded = app.request(Method::GET, "/api/health").header("x-padding", "x".repeat(40_000));
    answer(padded).await.fails(431, "HEADERS_TOO_LARGE");
}

/// The status that these bytes are answered with.
async fn raw_status(app: &TestApp, head: &str) -> String {
    let mut stream = TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await.unwrap();
    line.split(' ').nth(1).unwrap_or_default().to_owned()
}

async fn a_head_that_http_does_not_allow_is_refused(app: &TestApp) {
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
        // The head alone tells that the body is too long: nothing invites the client to send it.
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

async fn a_body_in_another_coding_is_refused(app: &TestApp) {
    let log_in = |coding: &'static str, body: &'static str| {
        let request = app.request(Method::POST, "/api/auth/login").header("content-encoding", coding);
        answer(request.header("content-type", "application/json").body(body))
    };
    let refused = log_in("gzip", "{}").await;
    assert!(refused.fails(415, "UNSUPPORTED_MEDIA_TYPE").contains("Content-Encoding"));
    log_in("identity", "{}").await.refuses("email");
    log_in("identity", "\u{feff}{}").await.refuses("email");
    assert_eq!(log_in("identity", "null").await.refuses("body"), "invalid type: null, expected an object");
}

async fn answers_are_not_kept_unless_they_say_so(app: &TestApp) {
    let registered = crate::auth::register(app, "ada@example.com").await.has(201);
    let logged_in = crate::auth::log_in(app, "ada@example.com", crate::auth::PASSWORD).await.ok();
    for answer in [registered, logged_in, app.get("/api/nothing").await, app.get("/api/users/me").await] {
        assert_eq!(answer.headers["cache-control"], "no-store");
    }
    let refused = app.get("/api/auth/oauth/github").await;
    refused.fails(501, "NOT_IMPLEMENTED");
    assert_eq!(app.app.http.requests.failed(), 0, "what is not offered is no failure");
}

async fn a_parameter_that_is_repeated_names_itself(app: &TestApp) {
    let ada = app.student("ada").await;
    for (path, name, value) in
        [("/api/chat/conversations", "limit", "1"), ("/api/progress/leaderboard", "period", "all")]
    {
        let message = format!("{name} must be given once");
        assert_eq!(ada.get(&format!("{path}?{name}={value}&{name}={value}")).await.refuses(name), message);
    }
    ada.get("/api/chat/conversations?unknown=1&unknown=2").await.ok();
    let name = "n".repeat(5_000);
    let message = ada.get(&format!("/api/chat/conversations?{name}=%00")).await;
    assert!(message.body.to_string().len() < 1_000, "what is repeated is cut");
}

async fn an_id_has_one_way_to_be_written(app: &TestApp) {
    let ada = app.student("ada").await;
    let id = ada.talk("hello").await;
    ada.get(&format!("/api/chat/conversations/{id}")).await.ok();
    for written in [format!("+{id}"), format!("0{id}"), format!("{id}.0"), format!("%20{id}")] {
        ada.get(&format!("/api/chat/conversations/{written}")).await.refuses("id");
    }
}

async fn a_body_that_does_not_come_is_not_waited_for(app: &TestApp) {
    let ada = app.student("ada").await;
    // The second waits for a model, and has no limit of its own otherwise.
    for path in ["/api/chat/conversations", "/api/chat/message"] {
        let never = futures_util::stream::pending::<std::io::Result<axum::body::Bytes>>();
        let request = ada.request(Method::POST, path).header("content-type", "application/json");
        let request = request.body(reqwest::Body::wrap_stream(never));
        answer(request).await.fails(408, "REQUEST_TIMEOUT");
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

async fn texts_that_show_nothing_are_refused(app: &TestApp) {
    crate::exercises::load_catalogue(app).await;
    let ada = app.student("ada").await;
    let conversation = format!("/api/chat/conversations/{}", ada.talk("hello").await);
    let learning = |field: &str, text: &str| {
        let mut fields = json!({
            "programming_language": "rust", "skill_level": "beginner", "career_goals": "Become a developer",
            "learning_style": "reading", "time_commitment": "weekends",
        });
        fields[field] = json!(text);
        fields
    };
    let asked = app.model.received().len();
    // As long as the longest of the lower bounds, so that no other rule refuses them.
    for character in
        ['\u{200b}', '\u{202e}', '\u{2060}', '\u{feff}', '\u{3164}', '\u{ffa0}', '\u{2800}', '\u{fe0f}', '\u{e0041}']
    {
        let text = character.to_string().repeat(12);
        let register = json!({"email": "new@example.com", "password": "Correct-1-horse", "name": text});
        app.post("/api/auth/register", register).await.refuses("name");
        for field in ["name", "programming_language", "career_goals", "learning_style", "time_commitment"] {
            ada.put("/api/users/me", json!({field: text})).await.refuses(field);
        }
        for field in ["programming_language", "career_goals", "learning_style", "time_commitment"] {
            ada.put("/api/users/me/preferences", json!({field: text})).await.refuses(field);
            ada.post("/api/users/onboarding", learning(field, &text)).await.refuses(field);
        }
        ada.post("/api/chat/conversations", json!({"title": text})).await.refuses("title");
        ada.patch(&conversation, json!({"title": text})).await.refuses("title");
        for path in ["message", "stream"] {
            ada.post(&format!("/api/chat/{path}"), json!({"message": text})).await.refuses("message");
        }
        ada.post("/api/exercises/1/submit", json!({"solution": format!("\n{text} ")})).await.refuses("solution");
        ada.post("/api/exercises/generate", json!({"topic": text})).await.refuses("topic");
        ada.post("/api/progress/calculate-skill-level", json!({"topic": text})).await.refuses("topic");
    }
    assert_eq!(app.model.received().len(), asked, "the model was asked nothing");
    let shown = format!("\u{200b}{}", "x".repeat(12));
    ada.post("/api/chat/message", json!({"message": shown})).await.ok();
    ada.put("/api/users/me", json!({"name": "\u{202e}Ada"})).await.ok();
}

async fn titles_and_previews_end_between_clusters(app: &TestApp) {
    let ada = app.student("ada").await;
    let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466}";
    for (message, title, preview) in [
        (family.repeat(20), family.repeat(8), family.repeat(17)),
        (format!("{}e\u{301}t", "x".repeat(59)), "x".repeat(59), format!("{}e\u{301}t", "x".repeat(59))),
        (format!("{}\u{1f1e9}\u{1f1ea}", "x".repeat(119)), "x".repeat(60), "x".repeat(119)),
    ] {
        // The preview is of the newest message: the student's, while the model has given no reply.
        app.model.next(testbed::model::Behaviour::Fail(400, None));
        ada.post("/api/chat/message", json!({"message": message})).await.has(503);
        let newest = ada.get("/api/chat/conversations").await.ok().body["conversations"][0].clone();
        assert_eq!((&newest["title"], &newest["last_message_preview"]), (&json!(title), &json!(preview)));
    }
}
