//! `/ops`: who may see it, and that it shows what happened.

use reqwest::{Method, Response};
use serde_json::Value;
use tutord_core::model::Role;

use crate::harness::{Answer, Client, TestApp, answer};

crate::on_both!(
    only_admins_see_it,
    an_empty_system_explains_itself("--slow-query-threshold-ms", "3600000"),
    each_page_shows_what_happened("--slow-query-threshold-ms", "1"),
    statements_are_sorted_by_any_column,
    it_says_that_there_is_no_model("--llm-model", ""),
);

const PAGES: [&str; 10] = [
    "/ops",
    "/ops/queries",
    "/ops/slow",
    "/ops/findings",
    "/ops/cache",
    "/ops/pool",
    "/ops/server",
    "/ops/replicas",
    "/ops/llm",
    "/ops/mail",
];
/// A session that is in no cache is looked up as token, session and user.
const AUTHENTICATION: u32 = 3;
/// What is made to be slow.
const SLOW: &str = "WITH RECURSIVE n";

pub(crate) async fn admin(app: &TestApp) -> Client<'_> {
    app.user("grace", Role::Admin, true).await
}

/// The text of a page, which is to be one.
#[track_caller]
fn html(answer: &Answer) -> &str {
    assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8");
    let text = answer.body.as_str().unwrap();
    assert!(text.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{text}");
    text
}

#[track_caller]
pub(crate) fn shows(answer: &Answer, expected: &[&str]) {
    let text = html(answer);
    for part in expected {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

/// The id of that statement's shape.
fn slow_shape(app: &TestApp) -> String {
    app.app.http.watch.slow().into_iter().find(|slow| slow.sql.starts_with(SLOW)).unwrap().shape
}

async fn only_admins_see_it(app: &TestApp) {
    let (admin, student) = (admin(app).await, app.student("ada").await);
    let unverified = app.user("joan", Role::Admin, false).await;
    for path in PAGES {
        let login = app.get(path).await.has(401);
        shows(&login, &["<form id=\"log-in\" method=\"post\" action=\"/api/auth/login\">"]);
        assert_eq!(login.headers["cache-control"], "private, no-store");
        shows(&student.get(path).await.has(403), &["only admins have access"]);
        shows(
            &unverified.get(path).await.has(403),
            &["e-mail address not verified; open the link in the verification mail"],
        );
        let page = admin.get(path).await.ok();
        shows(&page, &["<main", "aria-current=\"page\"", &format!("href=\"{path}\"")]);
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        let own = match path {
            "/ops/server" => 2,
            "/ops/replicas" | "/ops/mail" => 1,
            _ => 0,
        };
        assert!(page.statements() <= AUTHENTICATION + own, "{path} issued {}", page.statements());
        let by_cookie = app.request(Method::GET, path).header("cookie", format!("access_token={}", admin.token));
        html(&answer(by_cookie).await.ok());
    }
    shows(&app.get("/ops/login").await.ok(), &["<form"]);
    let live = "/ops/live?page=overview";
    app.get(live).await.fails(401, "UNAUTHENTICATED");
    student.get(live).await.fails(403, "FORBIDDEN");
    admin.get("/ops/live?page=nothing").await.refuses("page");
}

async fn an_empty_system_explains_itself(app: &TestApp) {
    let admin = admin(app).await;
    let sqlite = app.app.operations.backend() == "sqlite";
    for (path, words) in [
        ("/ops", "Each route appears here with its first request."),
        ("/ops/slow", "No statement took longer than 3600000 ms since the start."),
        ("/ops/findings", "No findings since the start"),
        ("/ops/llm", "No requests to the model yet."),
        ("/ops/mail", "No undeliverable mails in the last 30 days."),
        ("/ops/server", if sqlite { "SQLite keeps no statistics" } else { "does not count statements" }),
        ("/ops/replicas", if sqlite { "SQLite has no replicas" } else { "No replica is connected" }),
    ] {
        // The first request is before any was counted.
        shows(&admin.get(path).await.ok(), &[words]);
    }
}

async fn each_page_shows_what_happened(app: &TestApp) {
    let (admin, student) = (admin(app).await, app.student("ada").await);
    student.talk("hello").await;
    student.get("/api/users/me").await.ok();
    student.get("/api/users/me").await.ok();
    app.get("/no/such/<b>").await.fails(404, "NOT_FOUND");
    app.issue_slow_statement();

    let overview = admin.get("/ops").await.ok();
    shows(&overview, &["POST /api/chat/message", "GET /api/users/me", "unmatched", "All slow statements"]);
    assert!(!html(&overview).contains("<b>"), "no path is shown");
    shows(&admin.get("/ops/slow").await.ok(), &[SLOW, "in the background", "finished"]);
    let cached = app.app.cache.stats().iter().any(|namespace| namespace.name == "user:profile");
    let cache = if cached { "Hit rate of user:profile" } else { "The cache is disabled." };
    shows(&admin.get("/ops/cache").await.ok(), &[cache]);
    shows(&admin.get("/ops/pool").await.ok(), &["Connections in use", "statements per second"]);
    shows(
        &admin.get("/ops/llm").await.ok(),
        &["fake-1", "<dt>Answered</dt><dd><span class=\"\">1</span></dd>", "POST /api/chat/message"],
    );

    let path = format!("/ops/queries/{}", slow_shape(app));
    shows(&admin.get("/ops/queries").await.ok(), &[SLOW, &path, "aria-sort=\"descending\""]);
    let page = admin.get(&path).await.ok();
    shows(&page, &["i + ? FROM n WHERE i &lt; ?", "data-chart=\"times\"", "<caption>In ms, newest first</caption>"]);
    shows(&admin.get("/ops/queries/0").await.has(404), &["No statement of this shape"]);
    shows(&admin.get("/ops/queries/%3Cb%3E").await.has(404), &["No statement of this shape"]);
}

async fn statements_are_sorted_by_any_column(app: &TestApp) {
    let (admin, student) = (admin(app).await, app.student("ada").await);
    student.talk("hello").await;
    for over in ["window", "start"] {
        for sort in ["total", "calls", "p50", "p95", "p99", "max", "errors", "slow"] {
            let page = admin.get(&format!("/ops/queries?sort={sort}&over={over}")).await.ok();
            let marked = format!("aria-sort=\"descending\"><a href=\"/ops/queries?sort={sort}&amp;over={over}\">");
            shows(&page, &[&marked, &format!("page=queries&amp;sort={sort}&amp;over={over}")]);
        }
    }
    admin.get("/ops/queries?sort=name").await.refuses("sort");
}

async fn it_says_that_there_is_no_model(app: &TestApp) {
    shows(&admin(app).await.get("/ops/llm").await.ok(), &["No model is configured"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn style_and_script_are_for_everybody_and_kept() {
    let app = TestApp::sqlite(&[]).await;
    for (name, kind) in [
        ("style.css", "text/css; charset=utf-8"),
        ("script.js", "text/javascript; charset=utf-8"),
        ("uplot.css", "text/css; charset=utf-8"),
        ("uplot.js", "text/javascript; charset=utf-8"),
    ] {
        let asset = app.get(&format!("/ops/assets/{name}")).await.ok();
        assert_eq!(asset.headers["content-type"], kind);
        assert_eq!(asset.headers["cache-control"], "public, max-age=31536000, immutable");
        shows(&app.get("/ops/login").await, &[&format!("\"/ops/assets/{name}?v=")]);
    }
    app.get("/ops/assets/mod.rs").await.fails(404, "NOT_FOUND");
}

/// Reads events until one has all its bytes; its data.
async fn snapshot(response: &mut Response) -> Value {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\n\n") {
        bytes.extend_from_slice(&response.chunk().await.unwrap().expect("an event"));
    }
    let text = String::from_utf8(bytes).unwrap();
    let (event, data) = text.split_once('\n').unwrap();
    assert_eq!(event, "event: snapshot");
    serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_are_told_until_the_server_stops() {
    let app = TestApp::sqlite(&["--slow-query-threshold-ms", "1"]).await;
    let admin = admin(&app).await;
    app.issue_slow_statement();
    let shape = slow_shape(&app);
    let page = admin.request(Method::GET, &format!("/ops/live?page=queries&shape={shape}"));
    let mut shape = page.send().await.unwrap();
    let page = admin.request(Method::GET, "/ops/live?page=slow&sort=p99");
    let mut slow = page.send().await.unwrap();
    assert_eq!(slow.headers()["content-type"], "text/event-stream");

    let data = snapshot(&mut slow).await;
    assert!(data["parts"]["slow"].as_str().unwrap().contains(SLOW), "{data:#}");
    assert!(data["news"]["slow"].as_u64().unwrap() > 0);
    let data = snapshot(&mut shape).await;
    assert_eq!(data["charts"]["times"]["unit"], "ms");
    assert_eq!(data["charts"]["times"]["empty"], false);
    assert_eq!(data["parts"]["times-note"], "");

    // What happens in the meantime is in a later one.
    app.issue_slow_statement();
    let rows = |data: &Value| data["parts"]["slow"].as_str().unwrap().matches(SLOW).count();
    while rows(&snapshot(&mut slow).await) < 2 {}

    app.app.background.shutdown.cancel();
    while slow.chunk().await.unwrap().is_some() {}
    while shape.chunk().await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn open_pages_are_bounded() {
    let app = TestApp::sqlite(&[]).await;
    let admin = admin(&app).await;
    let open = async || admin.request(Method::GET, "/ops/live?page=pool").send().await.unwrap();
    let mut pages = Vec::new();
    for _ in 0..16 {
        pages.push(open().await);
        assert_eq!(pages.last().unwrap().status(), 200);
    }
    assert_eq!(open().await.status(), 503);
    drop(pages);
    // The server learns of it when it next looks.
    while open().await.status() != 200 {}
}
