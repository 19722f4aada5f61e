//! Requests through the layer and the dashboard.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, Request, StatusCode};
use axum::response::Html;
use axum::routing::{any, get};
use maud::html;
use querywatch_axum::querywatch::FindingKind;
use querywatch_axum::{Frame, Section, maud};
use support::Service;
use tower::ServiceExt as _;

async fn respond(app: &Router, request: Request<Body>) -> (StatusCode, axum::http::HeaderMap, String) {
    let response = app.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = to_bytes(body, 1_000_000).await.unwrap();
    (head.status, head.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

/// Returns the body of a page, whose status is 200.
async fn page(app: &Router, path: &str) -> String {
    let (status, _, body) = respond(app, Request::get(path).body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    body
}

fn get_request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_route_of_a_scope_is_the_matched_path() {
    let service = Service::new();
    let app = Router::new().nest("/api", service.routes()).layer(service.layer());
    let request = Request::get("/api/users/7/posts").header("x-request-id", "r-1").body(Body::empty()).unwrap();
    assert_eq!(respond(&app, request).await.0, StatusCode::OK);
    let findings = service.watch.findings();
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!(finding.route.as_deref(), Some("GET /api/users/{count}/posts"));
    assert_eq!((finding.kind, finding.calls, finding.request_id.as_deref()), (FindingKind::NPlusOne, 7, Some("r-1")));
}

#[tokio::test]
async fn a_request_id_is_bounded_and_its_header_can_be_chosen() {
    let service = Service::new();
    let layer = service.layer().request_id_header(HeaderName::from_static("x-id"));
    let app = service.routes().layer(layer);
    for (id, expected) in [("a".repeat(128), Some("a".repeat(128))), ("a".repeat(129), None)] {
        let request = Request::get("/users/7/posts").header("x-id", id).header("x-request-id", "other");
        respond(&app, request.body(Body::empty()).unwrap()).await;
        assert_eq!(service.watch.findings()[0].request_id, expected);
    }
}

#[tokio::test]
async fn names_of_routes_are_bounded() {
    let comment = async || querywatch_axum::querywatch::sql_comment().unwrap_or_default();
    let app = Router::new().route("/comment/{id}", any(comment)).fallback(comment).layer(Service::new().layer());
    for (method, path, expected) in [
        ("GET", "/comment/1", "GET%20%2Fcomment%2F%7Bid%7D"),
        ("BREW", "/comment/2", "OTHER%20%2Fcomment%2F%7Bid%7D"),
        ("GET", "/elsewhere", "%28no%20route%29"),
        ("BREW", "/elsewhere", "%28no%20route%29"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        assert_eq!(respond(&app, request).await.2, format!(" /*route='{expected}'*/"), "{method} {path}");
    }
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (traceparent, expected) in [(trace, true), (&trace[1..], false)] {
        let request = Request::get("/elsewhere").header("traceparent", traceparent).body(Body::empty()).unwrap();
        assert_eq!(respond(&app, request).await.2.contains("traceparent"), expected, "{traceparent}");
    }
}

#[tokio::test]
async fn a_route_over_its_budget_is_a_finding() {
    let service = Service::new();
    let layer = service.layer().default_budget(2).budget("GET /users/{count}/posts", 4);
    let app = service.routes().nest("/ops", service.dashboard().router()).layer(layer);
    page(&app, "/users/4/posts").await;
    assert_eq!(service.watch.findings(), []);
    page(&app, "/users/5/posts").await;
    let findings = page(&app, "/ops/findings").await;
    assert!(findings.contains("Over budget") && findings.contains("GET /users/{count}/posts"), "{findings}");
    assert!(findings.contains("limit 4") && findings.contains("tests/requests.rs:"), "{findings}");
    // The default holds for routes without a budget.
    page(&app, "/markup/1").await;
    assert!(service.watch.findings().iter().any(|finding| (finding.calls, finding.limit) == (6, 2)));
}

#[tokio::test]
async fn statements_outside_of_requests_are_counted() {
    let service = Service::new();
    let dashboard: Router = service.dashboard().router();
    let before = page(&dashboard, "/findings").await;
    assert!(before.contains("No statement ran outside of a request."), "{before}");
    // The service without the layer has no scopes.
    page(&service.routes(), "/users/7/posts").await;
    let after = page(&dashboard, "/findings").await;
    assert!(after.contains("7 statements belong to no request"), "{after}");
    assert!(after.contains("SELECT id AS n FROM posts") && after.contains("tests/support/mod.rs:"), "{after}");
}

#[tokio::test]
async fn server_timing_is_opt_in() {
    let service = Service::new();
    let app = service.routes().layer(service.layer().server_timing(true));
    let (_, headers, _) = respond(&app, get_request("/users/3/posts")).await;
    let timing = headers["server-timing"].to_str().unwrap();
    let (database, total) = timing.split_once(";desc=\"3 statements\", total;dur=").unwrap();
    let database: f64 = database.strip_prefix("db;dur=").unwrap().parse().unwrap();
    let total: f64 = total.parse().unwrap();
    assert!(0.0 < database && database <= total, "{timing}");
    let app = service.routes().layer(service.layer());
    assert!(!respond(&app, get_request("/users/3/posts")).await.1.contains_key("server-timing"));
}

/// Returns the paths of all links, style sheets and scripts of a page.
fn links(page: &str) -> BTreeSet<String> {
    let attributes = ["href=\"", "src=\""].iter().flat_map(|name| page.split(name).skip(1));
    attributes
        .map(|rest| rest.split('"').next().unwrap().replace("&amp;", "&"))
        .filter(|link| !link.starts_with('#') && !link.starts_with("data:"))
        .collect()
}

#[tokio::test]
async fn every_link_works_at_every_prefix() {
    for prefix in ["", "/ops", "/tenants/{id}/ops"] {
        let service = Service::new();
        let app = service.app(prefix);
        let base = prefix.replace("{id}", "42");
        page(&app, "/users/7/posts").await;
        let root = if base.is_empty() { "/" } else { &base };
        let (mut seen, mut open) = (BTreeSet::from([root.to_owned()]), vec![root.to_owned()]);
        while let Some(path) = open.pop() {
            assert!(path.starts_with(&base), "{path} is not below {base}");
            for link in links(&page(&app, &path).await) {
                if !path.contains("/assets/") && seen.insert(link.clone()) {
                    open.push(link);
                }
            }
        }
        for expected in ["/slow", "/findings", "/requests", "/requests/1", "/queries"] {
            assert!(seen.contains(&format!("{base}{expected}")), "{expected} is not linked: {seen:?}");
        }
        assert!(seen.len() > 25, "only {} links", seen.len());
    }
}

#[tokio::test]
async fn the_base_path_can_be_fixed() {
    let service = Service::new();
    let app = Router::new().nest("/internal", service.dashboard().base_path("/public/").router());
    let links = links(&page(&app, "/internal/queries").await);
    assert!(links.iter().all(|link| link.starts_with("/public")) && links.contains("/public/slow"), "{links:?}");
}

#[tokio::test]
async fn names_are_escaped_and_values_are_not_shown() {
    let service = Service::new();
    let app = service.app("/ops");
    let request = Request::get("/markup/1").header("x-request-id", "<i>\"'").body(Body::empty()).unwrap();
    assert_eq!(respond(&app, request).await.0, StatusCode::OK);
    let shape = service.watch.findings()[0].shape.clone().unwrap();
    let paths = ["", "/requests", "/requests/1", "/queries", "/slow", "/findings", &format!("/queries/{shape}")];
    for path in paths {
        let page = page(&app, &format!("/ops{path}")).await;
        assert!(page.contains("&lt;script&gt;alert(1)") || path == "/requests", "{path} shows the statement: {page}");
        for part in ["<script>alert", "{<b>", "<i>", "secret"] {
            assert!(!page.contains(part), "{path} contains {part}: {page}");
        }
    }
    let (status, _, missing) = respond(&app, get_request("/ops/queries/%3Cb%3E%22")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(missing.contains("No statement of this shape") && !missing.contains("<b>"), "{missing}");
    // A message does not update itself.
    assert!(!missing.contains("data-refresh"), "{missing}");
}

#[tokio::test]
async fn requests_are_listed_with_their_statements() {
    let service = Service::new();
    let app = service.app("/ops");
    page(&app, "/users/7/posts").await;
    page(&app, "/users/2/posts").await;
    page(&app, "/idle").await;
    let requests = page(&app, "/ops/requests").await;
    let newest = requests.find("/ops/requests/2").unwrap();
    assert!(newest < requests.find("/ops/requests/1").unwrap(), "newest first: {requests}");
    assert!(requests.contains("4.50") && !requests.contains("/idle"), "{requests}");
    let first = page(&app, "/ops/requests/1").await;
    assert!(first.contains("GET /users/{count}/posts") && first.contains("<td class=\"number\">7</td>"), "{first}");
    let findings = page(&app, "/ops/findings").await;
    assert!(findings.contains("Post::belonging_to(&amp;users)"), "{findings}");
    // Older requests make room.
    for _ in 0..50 {
        page(&app, "/users/1/posts").await;
    }
    for number in ["2", "0", "x", "99999999999999999999"] {
        let (status, ..) = respond(&app, get_request(&format!("/ops/requests/{number}"))).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{number}");
    }
    page(&app, "/ops/requests/52").await;
}

#[tokio::test]
async fn statements_can_be_sorted() {
    let service = Service::new();
    let app = service.app("/ops");
    page(&app, "/users/7/posts").await;
    for sort in ["total", "calls", "p50", "p95", "p99", "max", "errors", "slow"] {
        for over in ["window", "start"] {
            let path = format!("/ops/queries?sort={sort}&over={over}");
            let marked = format!("aria-sort=\"descending\"><a href=\"{}\">", path.replace('&', "&amp;"));
            let page = page(&app, &path).await;
            assert!(page.contains(&marked), "{path}: {page}");
        }
    }
    let (status, _, body) = respond(&app, get_request("/ops/queries?sort=name")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("The parameter sort is one of total,"), "{body}");
}

#[tokio::test]
async fn a_page_has_headers_for_private_content() {
    let service = Service::new();
    let (_, headers, _) = respond(&service.app("/ops"), get_request("/ops")).await;
    assert_eq!(headers["cache-control"], "private, no-store");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    let (_, headers, _) = respond(&service.app("/ops"), get_request("/ops/assets/script.js")).await;
    assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
}

#[tokio::test]
async fn the_host_chooses_the_shell_the_sections_and_the_pages() {
    let service = Service::new();
    let shell = |frame: &Frame<'_>| Html(format!("<h1>my service</h1>{}", frame.content().into_string()));
    let dashboard = service
        .dashboard()
        .shell(shell)
        .without_overview()
        .statement_section(|shape| Section::new("plan", "Plan", html! { "plan of " (shape.id) }));
    let own = Router::new().route("/ops", get(async || "own overview"));
    let app = service.routes().nest("/ops", dashboard.router()).merge(own).layer(service.layer());
    page(&app, "/users/1/posts").await;
    let shape = &service.watch.shapes()[0].id;
    let statement = page(&app, &format!("/ops/queries/{shape}")).await;
    assert!(statement.starts_with("<h1>my service</h1><div class=\"querywatch\" data-refresh=\"2\""), "{statement}");
    assert!(statement.contains(&format!("plan of {shape}")), "{statement}");
    assert_eq!(page(&app, "/ops").await, "own overview");
}

#[tokio::test]
async fn a_layer_of_the_host_protects_all_pages() {
    let service = Service::new();
    let reject = axum::middleware::from_fn(async |_: Request<Body>, _: axum::middleware::Next| StatusCode::FORBIDDEN);
    let app: Router = Router::new().nest("/ops", service.dashboard().router::<()>().layer(reject));
    for path in ["", "/requests", "/requests/1", "/queries", "/queries/1", "/slow", "/findings", "/assets/style.css"] {
        let (status, _, body) = respond(&app, get_request(&format!("/ops{path}"))).await;
        assert_eq!((status, body.as_str()), (StatusCode::FORBIDDEN, ""), "{path}");
    }
}
