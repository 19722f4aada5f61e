//! Sessions of a browser: cookies, CSRF, refresh and logout.

use reqwest::Method;
use serde_json::json;

use crate::support::fixtures::{PASSWORD, log_in, register};
use crate::support::wait::wait_for;
use crate::support::{TestApp, TestResponse, fetch};

crate::on_both!(
    a_login_sets_the_cookies_of_the_contract,
    cookies_are_secure_outside_development(public_url("https://tutor.example")),
    a_write_by_cookie_requires_the_csrf_token,
    the_authorization_header_overrides_the_cookie,
    a_refresh_requires_a_valid_token,
    a_refresh_rotates_the_tokens,
    concurrent_refreshes_of_tabs_all_succeed,
    a_superseded_token_ends_the_session(refresh_grace_seconds(0)),
    a_logout_ends_the_session,
    a_logout_of_all_sessions_ends_all_sessions,
    a_logout_succeeds_with_an_expired_access_token(access_token_ttl_seconds(1)),
);

async fn session(app: &TestApp) -> TestResponse {
    register(app, "ada@example.com").await.assert_status(201);
    log_in(app, "ada@example.com", PASSWORD).await.assert_ok()
}

async fn call(app: &TestApp, method: Method, path: &str, cookies: &str, csrf: Option<&str>) -> TestResponse {
    let mut request = app.request(method, path).header("cookie", cookies);
    if let Some(csrf) = csrf {
        request = request.header("x-csrf-token", csrf);
    }
    fetch(request).await
}

async fn a_login_sets_the_cookies_of_the_contract(app: &TestApp) {
    let cookies = session(app).await.set_cookies();
    let [access, refresh, csrf, device] = ["access_token", "refresh_token", "csrf_token", "device_token"].map(|name| {
        let line = cookies.iter().find(|line| line.starts_with(name)).expect(name);
        line.split("; ").skip(1).map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(access, ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=3600"]);
    assert_eq!(refresh, ["HttpOnly", "SameSite=Strict", "Path=/api/auth", "Max-Age=2592000"]);
    assert_eq!(csrf, ["SameSite=Strict", "Path=/", "Max-Age=2592000"]);
    assert_eq!(device, ["HttpOnly", "SameSite=Strict", "Path=/api/auth", "Max-Age=31536000"]);
}

async fn cookies_are_secure_outside_development(app: &TestApp) {
    let login = session(app).await;
    for cookie in login.set_cookies() {
        assert!(cookie.contains("; Secure"), "{cookie}");
    }
    assert_eq!(login.headers["strict-transport-security"], "max-age=31536000; includeSubDomains");
}

async fn a_write_by_cookie_requires_the_csrf_token(app: &TestApp) {
    let session = session(app).await;
    let (access, csrf) = (session.cookie("access_token").unwrap(), session.cookie("csrf_token").unwrap());
    let both = format!("access_token={access}; csrf_token={csrf}");
    call(app, Method::GET, "/api/auth/me", &both, None).await.assert_ok();
    let write =
        async |cookies: &str, csrf: Option<&str>| call(app, Method::POST, "/api/auth/logout", cookies, csrf).await;
    write(&both, None).await.assert_error(403, "CSRF_FAILED");
    write(&both, Some("")).await.assert_error(403, "CSRF_FAILED");
    write(&both, Some("other")).await.assert_error(403, "CSRF_FAILED");
    let without = format!("access_token={access}");
    write(&without, Some(&csrf)).await.assert_error(403, "CSRF_FAILED");
    write(&format!("{without}; csrf_token="), Some("")).await.assert_error(403, "CSRF_FAILED");
    write(&both, Some(&csrf)).await.assert_ok();
}

async fn the_authorization_header_overrides_the_cookie(app: &TestApp) {
    let session = session(app).await;
    let cookies = format!("access_token={}", session.cookie("access_token").unwrap());
    let bob = app.student("bob").await;
    let request = bob.request(Method::GET, "/api/auth/me").header("cookie", &cookies);
    assert_eq!(fetch(request).await.assert_ok().body["user"]["email"], "bob@example.com");
    let request = bob.request(Method::POST, "/api/auth/logout").header("cookie", &cookies);
    fetch(request).await.assert_ok();
    call(app, Method::GET, "/api/auth/me", &cookies, None).await.assert_ok();
}

/// Returns the `Cookie` header of a browser that received this response.
fn cookies(response: &TestResponse) -> String {
    let names = ["access_token", "refresh_token", "csrf_token"];
    names.map(|name| format!("{name}={}", response.cookie(name).expect(name))).join("; ")
}

async fn refresh(app: &TestApp, cookies: &str) -> TestResponse {
    call(app, Method::POST, "/api/auth/refresh", cookies, None).await
}

async fn a_refresh_requires_a_valid_token(app: &TestApp) {
    fetch(app.request(Method::POST, "/api/auth/refresh")).await.assert_error(401, "UNAUTHENTICATED");
    app.post("/api/auth/refresh", json!({})).await.assert_error(401, "UNAUTHENTICATED");
    app.post("/api/auth/refresh", json!({"refresh_token": "nonsense"})).await.assert_error(401, "UNAUTHENTICATED");
    app.post("/api/auth/refresh", json!({"refresh_token": ""})).await.assert_invalid_field("refresh_token");
    app.post("/api/auth/refresh", json!({"refresh_token": 1})).await.assert_invalid_field("refresh_token");
}

async fn a_refresh_rotates_the_tokens(app: &TestApp) {
    let first = session(app).await;
    let request = app.request(Method::POST, "/api/auth/refresh").header("cookie", cookies(&first));
    let second = fetch(request.json(&json!({}))).await.assert_ok();
    assert_eq!(second.body["expires_in"], 3600);
    assert_ne!(first.cookie("refresh_token"), second.cookie("refresh_token"));
    assert_eq!(first.cookie("csrf_token"), second.cookie("csrf_token"), "another tab may be about to send it");
    assert_eq!(refresh(app, &cookies(&second)).await.assert_ok().set_cookies().len(), 3);
    let by_body = json!({"refresh_token": second.cookie("refresh_token")});
    let third = app.post("/api/auth/refresh", by_body).await.assert_ok();
    assert_ne!(second.cookie("csrf_token"), third.cookie("csrf_token"), "the request had none to preserve");
}

/// One of three responses is lost.
async fn concurrent_refreshes_of_tabs_all_succeed(app: &TestApp) {
    let mut browser = cookies(&session(app).await);
    for _ in 0..3 {
        let (one, two, _lost) = tokio::join!(refresh(app, &browser), refresh(app, &browser), refresh(app, &browser));
        for tab in [&one, &two] {
            assert_eq!(tab.status, 200, "{:#}", tab.body);
            call(app, Method::GET, "/api/auth/me", &cookies(tab), None).await.assert_ok();
        }
        browser = cookies(&two);
    }
}

async fn a_superseded_token_ends_the_session(app: &TestApp) {
    let first = session(app).await;
    let (second, sibling) =
        (refresh(app, &cookies(&first)).await.assert_ok(), refresh(app, &cookies(&first)).await.assert_ok());
    let third = refresh(app, &cookies(&second)).await.assert_ok();
    let me = async || call(app, Method::GET, "/api/auth/me", &cookies(&third), None).await;
    me().await.assert_ok();
    // The grace period is 0 seconds.
    refresh(app, &cookies(&sibling)).await.assert_error(401, "UNAUTHENTICATED");
    me().await.assert_error(401, "UNAUTHENTICATED");
    refresh(app, &cookies(&third)).await.assert_error(401, "UNAUTHENTICATED");
}

async fn call_with_token(app: &TestApp, login: &TestResponse, method: Method, path: &str) -> TestResponse {
    fetch(app.request(method, path).bearer_auth(login.cookie("access_token").unwrap())).await
}

async fn a_logout_ends_the_session(app: &TestApp) {
    let (first, second) = (session(app).await, log_in(app, "ada@example.com", PASSWORD).await.assert_ok());
    let out = call_with_token(app, &first, Method::POST, "/api/auth/logout").await.assert_ok();
    for name in ["access_token", "refresh_token", "csrf_token"] {
        assert_eq!(out.cookie(name).as_deref(), Some(""), "cleared");
    }
    call_with_token(app, &first, Method::GET, "/api/auth/me").await.assert_error(401, "UNAUTHENTICATED");
    let refresh = json!({"refresh_token": first.cookie("refresh_token").unwrap()});
    app.post("/api/auth/refresh", refresh).await.assert_error(401, "UNAUTHENTICATED");
    call_with_token(app, &second, Method::GET, "/api/auth/me").await.assert_ok();
}

async fn a_logout_of_all_sessions_ends_all_sessions(app: &TestApp) {
    let (first, second) = (session(app).await, log_in(app, "ada@example.com", PASSWORD).await.assert_ok());
    let log_out =
        async |query: &str| call_with_token(app, &first, Method::POST, &format!("/api/auth/logout?{query}")).await;
    log_out("all=maybe").await.assert_invalid_field("all");
    log_out("all=true").await.assert_ok();
    call_with_token(app, &second, Method::GET, "/api/auth/me").await.assert_error(401, "UNAUTHENTICATED");
}

async fn a_logout_succeeds_with_an_expired_access_token(app: &TestApp) {
    let session = session(app).await;
    let (access, csrf) = (session.cookie("access_token").unwrap(), session.cookie("csrf_token").unwrap());
    let refresh = session.cookie("refresh_token").unwrap();
    // The access token expires after one second.
    let cookie = format!("access_token={access}");
    wait_for(async || (call(app, Method::GET, "/api/auth/me", &cookie, None).await.status != 200).then_some(())).await;
    let cookies = format!("access_token={access}; refresh_token={refresh}; csrf_token={csrf}");
    call(app, Method::POST, "/api/auth/logout", &cookies, None).await.assert_error(403, "CSRF_FAILED");
    call(app, Method::POST, "/api/auth/logout", &cookies, Some(&csrf)).await.assert_ok();
    app.post("/api/auth/refresh", json!({"refresh_token": refresh})).await.assert_error(401, "UNAUTHENTICATED");
}
