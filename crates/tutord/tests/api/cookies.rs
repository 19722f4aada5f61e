//! Sessions as a browser has them: cookies, CSRF, refresh and logout.

use reqwest::Method;
use serde_json::json;

use crate::auth::{PASSWORD, log_in, register};
use crate::harness::{Answer, TestApp, answer};

crate::on_both!(
    cookies_are_as_the_contract_has_them,
    cookies_are_secure_outside_development("--public-url", "https://tutor.example"),
    writing_by_cookie_needs_the_csrf_token,
    the_header_wins_over_the_cookie,
    refreshing_rotates_the_tokens,
    tabs_refresh_at_once_and_answers_get_lost,
    a_retired_token_ends_the_session("--refresh-grace-seconds", "0"),
    logging_out_ends_the_session,
    logging_out_works_with_an_expired_access_token("--access-token-ttl-seconds", "1"),
);

async fn session(app: &TestApp) -> Answer {
    register(app, "ada@example.com").await.has(201);
    log_in(app, "ada@example.com", PASSWORD).await.ok()
}

async fn call(app: &TestApp, method: Method, path: &str, cookies: &str, csrf: Option<&str>) -> Answer {
    let mut request = app.request(method, path).header("cookie", cookies);
    if let Some(csrf) = csrf {
        request = request.header("x-csrf-token", csrf);
    }
    answer(request).await
}

async fn cookies_are_as_the_contract_has_them(app: &TestApp) {
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
    let answer = session(app).await;
    for cookie in answer.set_cookies() {
        assert!(cookie.contains("; Secure"), "{cookie}");
    }
    assert_eq!(answer.headers["strict-transport-security"], "max-age=31536000; includeSubDomains");
}

async fn writing_by_cookie_needs_the_csrf_token(app: &TestApp) {
    let session = session(app).await;
    let (access, csrf) = (session.cookie("access_token").unwrap(), session.cookie("csrf_token").unwrap());
    let both = format!("access_token={access}; csrf_token={csrf}");
    call(app, Method::GET, "/api/auth/me", &both, None).await.ok();
    let write =
        async |cookies: &str, csrf: Option<&str>| call(app, Method::POST, "/api/auth/logout", cookies, csrf).await;
    write(&both, None).await.fails(403, "CSRF_FAILED");
    write(&both, Some("")).await.fails(403, "CSRF_FAILED");
    write(&both, Some("other")).await.fails(403, "CSRF_FAILED");
    let without = format!("access_token={access}");
    write(&without, Some(&csrf)).await.fails(403, "CSRF_FAILED");
    write(&format!("{without}; csrf_token="), Some("")).await.fails(403, "CSRF_FAILED");
    write(&both, Some(&csrf)).await.ok();
}

async fn the_header_wins_over_the_cookie(app: &TestApp) {
    let session = session(app).await;
    let cookies = format!("access_token={}", session.cookie("access_token").unwrap());
    let bob = app.student("bob").await;
    let request = bob.request(Method::GET, "/api/auth/me").header("cookie", &cookies);
    assert_eq!(answer(request).await.ok().body["user"]["email"], "bob@example.com");
    let request = bob.request(Method::POST, "/api/auth/logout").header("cookie", &cookies);
    answer(request).await.ok();
    call(app, Method::GET, "/api/auth/me", &cookies, None).await.ok();
}

/// A browser's cookies after an answer that sets some.
fn cookies(answer: &Answer) -> String {
    let names = ["access_token", "refresh_token", "csrf_token"];
    names.map(|name| format!("{name}={}", answer.cookie(name).expect(name))).join("; ")
}

async fn refresh(app: &TestApp, cookies: &str) -> Answer {
    call(app, Method::POST, "/api/auth/refresh", cookies, None).await
}

async fn refreshing_rotates_the_tokens(app: &TestApp) {
    answer(app.request(Method::POST, "/api/auth/refresh")).await.fails(401, "UNAUTHENTICATED");
    app.post("/api/auth/refresh", json!({})).await.fails(401, "UNAUTHENTICATED");
    app.post("/api/auth/refresh", json!({"refresh_token": "nonsense"})).await.fails(401, "UNAUTHENTICATED");
    app.post("/api/auth/refresh", json!({"refresh_token": ""})).await.refuses("refresh_token");
    app.post("/api/auth/refresh", json!({"refresh_token": 1})).await.refuses("refresh_token");
    let first = session(app).await;
    let request = app.request(Method::POST, "/api/auth/refresh").header("cookie", cookies(&first));
    let second = answer(request.json(&json!({}))).await.ok();
    assert_eq!(second.body["expires_in"], 3600);
    assert_ne!(first.cookie("refresh_token"), second.cookie("refresh_token"));
    assert_eq!(first.cookie("csrf_token"), second.cookie("csrf_token"), "another tab may be about to send it");
    assert_eq!(refresh(app, &cookies(&second)).await.ok().set_cookies().len(), 3);
    let by_body = json!({"refresh_token": second.cookie("refresh_token")});
    let third = app.post("/api/auth/refresh", by_body).await.ok();
    assert_ne!(second.cookie("csrf_token"), third.cookie("csrf_token"), "there was none to keep");
}

async fn tabs_refresh_at_once_and_answers_get_lost(app: &TestApp) {
    let mut browser = cookies(&session(app).await);
    for _ in 0..3 {
        let (one, two, _lost) = tokio::join!(refresh(app, &browser), refresh(app, &browser), refresh(app, &browser));
        for tab in [&one, &two] {
            assert_eq!(tab.status, 200, "{:#}", tab.body);
            call(app, Method::GET, "/api/auth/me", &cookies(tab), None).await.ok();
        }
        browser = cookies(&two);
    }
}

async fn a_retired_token_ends_the_session(app: &TestApp) {
    let first = session(app).await;
    let (second, sibling) = (refresh(app, &cookies(&first)).await.ok(), refresh(app, &cookies(&first)).await.ok());
    let third = refresh(app, &cookies(&second)).await.ok();
    let me = async || call(app, Method::GET, "/api/auth/me", &cookies(&third), None).await;
    me().await.ok();
    // The grace is 0 seconds.
    refresh(app, &cookies(&sibling)).await.fails(401, "UNAUTHENTICATED");
    me().await.fails(401, "UNAUTHENTICATED");
    refresh(app, &cookies(&third)).await.fails(401, "UNAUTHENTICATED");
}

async fn logging_out_ends_the_session(app: &TestApp) {
    let (first, second) = (session(app).await, log_in(app, "ada@example.com", PASSWORD).await.ok());
    let third = log_in(app, "ada@example.com", PASSWORD).await.ok();
    let request = |answer: &Answer, method: Method, path: &str| {
        app.request(method, path).bearer_auth(answer.cookie("access_token").unwrap())
    };
    let me = |session: &Answer| answer(request(session, Method::GET, "/api/auth/me"));
    let out = answer(request(&first, Method::POST, "/api/auth/logout")).await.ok();
    for name in ["access_token", "refresh_token", "csrf_token"] {
        assert_eq!(out.cookie(name).as_deref(), Some(""), "cleared");
    }
    me(&first).await.fails(401, "UNAUTHENTICATED");
    let refresh = json!({"refresh_token": first.cookie("refresh_token").unwrap()});
    app.post("/api/auth/refresh", refresh).await.fails(401, "UNAUTHENTICATED");
    me(&second).await.ok();
    answer(request(&second, Method::POST, "/api/auth/logout?all=maybe")).await.refuses("all");
    answer(request(&second, Method::POST, "/api/auth/logout?all=true")).await.ok();
    me(&third).await.fails(401, "UNAUTHENTICATED");
}

async fn logging_out_works_with_an_expired_access_token(app: &TestApp) {
    let session = session(app).await;
    let (access, csrf) = (session.cookie("access_token").unwrap(), session.cookie("csrf_token").unwrap());
    let refresh = session.cookie("refresh_token").unwrap();
    // Until the access token has expired by itself: its time to live is one second.
    while call(app, Method::GET, "/api/auth/me", &format!("access_token={access}"), None).await.status == 200 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let cookies = format!("access_token={access}; refresh_token={refresh}; csrf_token={csrf}");
    call(app, Method::POST, "/api/auth/logout", &cookies, None).await.fails(403, "CSRF_FAILED");
    call(app, Method::POST, "/api/auth/logout", &cookies, Some(&csrf)).await.ok();
    app.post("/api/auth/refresh", json!({"refresh_token": refresh})).await.fails(401, "UNAUTHENTICATED");
}
