//! `/ops`: its permissions, and what its pages show.

use reqwest::{Method, Response};
use serde_json::Value;

use crate::support::{TestApp, fetch};

crate::on_both!(
    every_page_requires_an_admin,
    every_page_stays_within_its_statement_budget,
    every_page_accepts_a_session_cookie,
    the_live_pages_require_an_admin,
    the_pages_of_a_new_server_explain_why_they_are_empty(slow_query_threshold_ms(3_600_000)),
    the_overview_shows_requests_by_route,
    the_pages_show_slow_statements(slow_query_threshold_ms(1)),
    the_cache_page_shows_hit_rates,
    the_pool_page_shows_connections,
    the_model_page_shows_requests_to_the_model,
    a_statement_page_shows_the_times_of_its_shape(slow_query_threshold_ms(1)),
    an_unknown_statement_is_not_found,
    the_statements_can_be_sorted_by_any_column,
    the_model_page_shows_that_no_model_is_configured(without_model()),
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
/// An uncached session costs a statement each for its token, its session and its user.
const AUTHENTICATION: u32 = 3;
/// The start of the slow statement.
const SLOW: &str = "WITH RECURSIVE n";

/// Returns the id of the slow statement's shape.
fn slow_shape(app: &TestApp) -> String {
    app.watch().slow_statements().into_iter().find(|slow| slow.sql.starts_with(SLOW)).unwrap().shape
}

async fn every_page_requires_an_admin(app: &TestApp) {
    let (admin, student) = (app.admin("grace").await, app.student("ada").await);
    let unverified = app.user("joan").admin().unverified().create().await;
    for path in PAGES {
        let login = app.get(path).await.assert_status(401);
        login.assert_page_contains(&["<form id=\"log-in\" method=\"post\" action=\"/api/auth/login\">"]);
        assert_eq!(login.headers["cache-control"], "private, no-store");
        student.get(path).await.assert_status(403).assert_page_contains(&["only admins have access"]);
        let message = "e-mail address not verified; open the link in the verification mail";
        unverified.get(path).await.assert_status(403).assert_page_contains(&[message]);
        let page = admin.get(path).await.assert_ok();
        page.assert_page_contains(&["<main", "aria-current=\"page\"", &format!("href=\"{path}\"")]);
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    }
    app.get("/ops/login").await.assert_ok().assert_page_contains(&["<form"]);
}

async fn every_page_stays_within_its_statement_budget(app: &TestApp) {
    let admin = app.admin("grace").await;
    for path in PAGES {
        let page = admin.get(path).await.assert_ok();
        let own = match path {
            "/ops/server" => 2,
            "/ops/replicas" | "/ops/mail" => 1,
            _ => 0,
        };
        assert!(page.statement_count() <= AUTHENTICATION + own, "{path} issued {}", page.statement_count());
    }
}

async fn every_page_accepts_a_session_cookie(app: &TestApp) {
    let admin = app.admin("grace").await;
    for path in PAGES {
        let by_cookie = app.request(Method::GET, path).header("cookie", format!("access_token={}", admin.token));
        fetch(by_cookie).await.assert_ok().assert_html();
    }
}

async fn the_live_pages_require_an_admin(app: &TestApp) {
    let (admin, student) = (app.admin("grace").await, app.student("ada").await);
    let live = "/ops/live?page=overview";
    app.get(live).await.assert_error(401, "UNAUTHENTICATED");
    student.get(live).await.assert_error(403, "FORBIDDEN");
    admin.get("/ops/live?page=nothing").await.assert_invalid_field("page");
}

async fn the_pages_of_a_new_server_explain_why_they_are_empty(app: &TestApp) {
    let admin = app.admin("grace").await;
    let sqlite = app.is_sqlite();
    for (path, words) in [
        ("/ops", "Each route appears here with its first request."),
        ("/ops/slow", "No statement took longer than 3600000 ms since the start."),
        ("/ops/findings", "No findings since the start"),
        ("/ops/llm", "No requests to the model yet."),
        ("/ops/mail", "No undeliverable mails in the last 30 days."),
        ("/ops/server", if sqlite { "SQLite keeps no statistics" } else { "does not count statements" }),
        ("/ops/replicas", if sqlite { "SQLite has no replicas" } else { "No replica is connected" }),
    ] {
        // The server counts the first request after its response.
        admin.get(path).await.assert_ok().assert_page_contains(&[words]);
    }
}

async fn the_overview_shows_requests_by_route(app: &TestApp) {
    let (admin, student) = (app.admin("grace").await, app.student("ada").await);
    student.start_conversation("hello").await;
    student.get("/api/users/me").await.assert_ok();
    app.get("/no/such/<b>").await.assert_error(404, "NOT_FOUND");
    let overview = admin.get("/ops").await.assert_ok();
    let parts = ["POST /api/chat/message", "GET /api/users/me", "unmatched"];
    overview.assert_page_contains(&parts);
    assert!(!overview.assert_html().contains("<b>"), "the page shows no path");
}

async fn the_pages_show_slow_statements(app: &TestApp) {
    let admin = app.admin("grace").await;
    app.issue_slow_statement();
    let path = format!("/ops/queries/{}", slow_shape(app));
    admin.get("/ops").await.assert_ok().assert_page_contains(&["All slow statements"]);
    admin.get("/ops/slow").await.assert_ok().assert_page_contains(&[SLOW, "in the background", "finished"]);
    admin.get("/ops/queries").await.assert_ok().assert_page_contains(&[SLOW, &path, "aria-sort=\"descending\""]);
}

async fn the_cache_page_shows_hit_rates(app: &TestApp) {
    let (admin, student) = (app.admin("grace").await, app.student("ada").await);
    student.get("/api/users/me").await.assert_ok();
    student.get("/api/users/me").await.assert_ok();
    let cached = app.cache().stats().iter().any(|namespace| namespace.name == "user:profile");
    let cache = if cached { "Hit rate of user:profile" } else { "The cache is disabled." };
    admin.get("/ops/cache").await.assert_ok().assert_page_contains(&[cache]);
}

async fn the_pool_page_shows_connections(app: &TestApp) {
    let page = app.admin("grace").await.get("/ops/pool").await.assert_ok();
    page.assert_page_contains(&["Connections in use", "statements per second"]);
}

async fn the_model_page_shows_requests_to_the_model(app: &TestApp) {
    let (admin, student) = (app.admin("grace").await, app.student("ada").await);
    student.start_conversation("hello").await;
    let answered = "<dt>Answered</dt><dd><span class=\"\">1</span></dd>";
    let page = admin.get("/ops/llm").await.assert_ok();
    page.assert_page_contains(&["fake-1", answered, "POST /api/chat/message"]);
}

async fn a_statement_page_shows_the_times_of_its_shape(app: &TestApp) {
    let admin = app.admin("grace").await;
    app.issue_slow_statement();
    let page = admin.get(&format!("/ops/queries/{}", slow_shape(app))).await.assert_ok();
    let caption = "<caption>In ms, newest first</caption>";
    page.assert_page_contains(&["i + ? FROM n WHERE i &lt; ?", "data-chart=\"times\"", caption]);
}

async fn an_unknown_statement_is_not_found(app: &TestApp) {
    let admin = app.admin("grace").await;
    for shape in ["0", "%3Cb%3E"] {
        let page = admin.get(&format!("/ops/queries/{shape}")).await.assert_status(404);
        page.assert_page_contains(&["No statement of this shape"]);
    }
}

async fn the_statements_can_be_sorted_by_any_column(app: &TestApp) {
    let (admin, student) = (app.admin("grace").await, app.student("ada").await);
    student.start_conversation("hello").await;
    for over in ["window", "start"] {
        for sort in ["total", "calls", "p50", "p95", "p99", "max", "errors", "slow"] {
            let page = admin.get(&format!("/ops/queries?sort={sort}&over={over}")).await.assert_ok();
            let marked = format!("aria-sort=\"descending\"><a href=\"/ops/queries?sort={sort}&amp;over={over}\">");
            page.assert_page_contains(&[&marked, &format!("page=queries&amp;sort={sort}&amp;over={over}")]);
        }
    }
    admin.get("/ops/queries?sort=name").await.assert_invalid_field("sort");
}

async fn the_model_page_shows_that_no_model_is_configured(app: &TestApp) {
    let page = app.admin("grace").await.get("/ops/llm").await.assert_ok();
    page.assert_page_contains(&["No model is configured"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_assets_are_public_and_immutable() {
    let app = TestApp::sqlite().start().await;
    for (name, kind) in [
        ("style.css", "text/css; charset=utf-8"),
        ("script.js", "text/javascript; charset=utf-8"),
        ("uplot.css", "text/css; charset=utf-8"),
        ("uplot.js", "text/javascript; charset=utf-8"),
    ] {
        let asset = app.get(&format!("/ops/assets/{name}")).await.assert_ok();
        assert_eq!(asset.headers["content-type"], kind);
        assert_eq!(asset.headers["cache-control"], "public, max-age=31536000, immutable");
        app.get("/ops/login").await.assert_page_contains(&[&format!("\"/ops/assets/{name}?v=")]);
    }
    app.get("/ops/assets/mod.rs").await.assert_error(404, "NOT_FOUND");
}

/// Reads the next event completely; returns its data.
async fn next_snapshot(response: &mut Response) -> Value {
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
async fn a_live_page_gets_snapshots_until_the_shutdown() {
    let app = TestApp::sqlite().slow_query_threshold_ms(1).start().await;
    let admin = app.admin("grace").await;
    app.issue_slow_statement();
    let shape = slow_shape(&app);
    let page = admin.request(Method::GET, &format!("/ops/live?page=queries&shape={shape}"));
    let mut shape = page.send().await.unwrap();
    let page = admin.request(Method::GET, "/ops/live?page=slow&sort=p99");
    let mut slow = page.send().await.unwrap();
    assert_eq!(slow.headers()["content-type"], "text/event-stream");

    let data = next_snapshot(&mut slow).await;
    assert!(data["parts"]["slow"].as_str().unwrap().contains(SLOW), "{data:#}");
    assert!(data["news"]["slow"].as_u64().unwrap() > 0);
    let data = next_snapshot(&mut shape).await;
    assert_eq!(data["charts"]["times"]["unit"], "ms");
    assert_eq!(data["charts"]["times"]["empty"], false);
    assert_eq!(data["parts"]["times-note"], "");

    // A later snapshot contains what happened since.
    app.issue_slow_statement();
    let rows = |data: &Value| data["parts"]["slow"].as_str().unwrap().matches(SLOW).count();
    while rows(&next_snapshot(&mut slow).await) < 2 {}

    app.shut_down();
    while slow.chunk().await.unwrap().is_some() {}
    while shape.chunk().await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_live_pages_is_bounded() {
    let app = TestApp::sqlite().start().await;
    let admin = app.admin("grace").await;
    let open = async || admin.request(Method::GET, "/ops/live?page=pool").send().await.unwrap();
    let mut pages = Vec::new();
    for _ in 0..16 {
        pages.push(open().await);
        assert_eq!(pages.last().unwrap().status(), 200);
    }
    assert_eq!(open().await.status(), 503);
    drop(pages);
    // The server notices the closed pages with a delay.
    while open().await.status() != 200 {}
}
