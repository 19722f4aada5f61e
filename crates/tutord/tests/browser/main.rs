//! The dashboard and the page of the API in a headless Chromium.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests of the API use the rest")]
mod support;

use serde_json::{Value, json};
use testbed::Browser;

use support::TestApp;
use support::database::ReplicatedPostgres;
use support::fixtures::PASSWORD;
use support::process::{DemoClient, kill, start_demo};

async fn start() -> (TestApp, Browser) {
    (TestApp::sqlite().slow_query_threshold_ms(1).start().await, start_browser().await)
}

async fn start_browser() -> Browser {
    let browser = Browser::start().await;
    browser.resize(1_280, 900).await;
    browser
}

/// Logs in with the form of the current page.
async fn log_in(browser: &Browser, email: &str, password: &str) {
    browser.write("input[name=email]", email).await;
    browser.write("input[name=password]", password).await;
    browser.click("#log-in button").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_shows_a_new_slow_statement() {
    let (app, browser) = start().await;
    app.user("grace").admin().password(PASSWORD).create().await;
    browser.go(&format!("{}/ops/slow", app.base_url)).await;
    log_in(&browser, "grace@example.com", PASSWORD).await;
    browser.find("main[data-live]").await;
    browser.until("document.querySelector('#live-status').textContent.startsWith('Live.')").await;

    app.issue_slow_statement();
    let row = "main tbody a[href^='/ops/queries/']";
    browser
        .until(&format!(
            "[...document.querySelectorAll(\"{row}\")].some((a) => a.textContent.startsWith('WITH RECURSIVE'))"
        ))
        .await;
    // Background tasks may have issued newer statements.
    browser
        .run(&format!(
            "[...document.querySelectorAll(\"{row}\")].find((a) => a.textContent.startsWith('WITH RECURSIVE')).click()"
        ))
        .await;
    browser.find("#sql-heading").await;
    browser.until("document.querySelector('[data-part=plan] pre')?.textContent.includes('SCAN n')").await;
    browser.find(".plot canvas").await;
    let loaded = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)").await;
    let elsewhere: Vec<_> =
        loaded.as_array().unwrap().iter().filter(|name| !name.as_str().unwrap().starts_with(&app.base_url)).collect();
    assert_eq!(elsewhere, Vec::<&Value>::new(), "no resource of another origin");
    browser.save_screenshot("statement").await;

    browser.click("#log-out").await;
    browser.find("#log-in").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_findings_page_shows_the_naive_list_only() {
    let directory = tempfile::tempdir().unwrap();
    let model = testbed::FakeModel::start().await.unwrap();
    let browser = start_browser().await;
    let (server, greeting) = start_demo(directory.path(), &model, &["--naive"]);
    let of = |who: &str, what: &str| greeting[who][what].as_str().unwrap().to_owned();

    browser.go(&format!("{}/ops/findings", greeting["base_url"].as_str().unwrap())).await;
    log_in(&browser, &of("admin", "email"), &of("admin", "password")).await;
    browser.find("main[data-live]").await;
    browser.until("document.querySelector('#live-status').textContent.startsWith('Live.')").await;

    let client = DemoClient::log_in(&greeting, "student").await;
    for path in ["/api/demo/conversations", "/api/chat/conversations"] {
        let list = client.get(path).send().await.unwrap();
        assert_eq!(list.status(), 200);
    }
    browser
        .until(
            "[...document.querySelectorAll('[data-part=findings] tbody tr')].some((row) =>
                 row.textContent.includes('N+1') && row.textContent.includes('GET /api/demo/conversations'))",
        )
        .await;
    let found = browser.run("return document.querySelector('[data-part=findings]').textContent").await;
    assert!(!found.as_str().unwrap().contains("/api/chat/"), "the bounded list has no finding: {found}");
    browser.save_screenshot("findings").await;

    browser.go(&format!("{}/ops", client.base_url)).await;
    let rows = browser.run("return document.querySelector('[data-part=routes]').textContent").await;
    for route in ["GET /api/demo/conversations", "GET /api/chat/conversations"] {
        assert!(rows.as_str().unwrap().contains(route), "the page shows both times: {rows}");
    }
    kill(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_rejects_a_student() {
    let (app, browser) = start().await;
    app.user("ada").password(PASSWORD).create().await;
    browser.go(&format!("{}/ops", app.base_url)).await;
    browser.write("input[name=email]", "ada@example.com").await;
    browser.write("input[name=password]", "wrong").await;
    browser.click("#log-in button").await;
    browser.until("document.querySelector('#refused').textContent === 'e-mail or password is wrong'").await;
    browser.run("document.querySelector('#log-in').reset()").await;
    log_in(&browser, "ada@example.com", PASSWORD).await;
    browser.find("a[href='/ops/login']").await;
    let status = browser.run("return performance.getEntriesByType('navigation')[0].responseStatus").await;
    assert_eq!(status, 403);
    assert_eq!(browser.violations().await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_accessible() {
    let postgres = ReplicatedPostgres::start().await;
    let app = TestApp::on_database(&postgres.url).slow_query_threshold_ms(1).start().await;
    let browser = start_browser().await;
    app.user("grace").admin().password(PASSWORD).create().await;
    let student = app.student("ada").await;
    student.start_conversation("hello").await;
    app.issue_slow_statement();
    browser.go(&format!("{}/ops", app.base_url)).await;
    assert_eq!(browser.violations().await, Vec::<Value>::new());
    log_in(&browser, "grace@example.com", PASSWORD).await;
    browser.find("main[data-live]").await;
    let shape = format!(
        "queries/{}",
        app.watch().slow_statements().into_iter().find(|slow| slow.sql.starts_with("WITH RECURSIVE")).unwrap().shape
    );
    for page in ["", "queries", &shape, "slow", "findings", "cache", "pool", "server", "replicas", "llm", "mail"] {
        browser.go(format!("{}/ops/{page}", app.base_url).trim_end_matches('/')).await;
        assert_eq!(browser.violations().await, Vec::<Value>::new(), "{page}");
    }
    for page in ["verify-email", "reset-password"] {
        for token in ["a".repeat(43), "stale".to_owned()] {
            browser.go(&format!("{}/{page}?token={token}", app.base_url)).await;
            assert_eq!(browser.violations().await, Vec::<Value>::new(), "{page}");
        }
    }
    browser.go(&format!("{}/ops", app.base_url)).await;
    browser.find(".plot canvas").await;
    browser.save_screenshot("overview-dark").await;
    browser.prefer("light").await;
    browser.save_screenshot("overview-light").await;
    // The width of a phone: only tables scroll horizontally.
    browser.resize(500, 900).await;
    browser.go(&format!("{}/ops", app.base_url)).await;
    let too_wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
    assert_eq!(browser.run(too_wide).await, false);
    browser.save_screenshot("overview-phone").await;
}

/// Two tabs share the cookies. The responses may set them in any order without a logout.
#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_that_refresh_at_once_stay_logged_in() {
    let (app, browser) = (TestApp::sqlite().start().await, start_browser().await);
    app.user("ada").password(PASSWORD).create().await;
    let page = format!("{}/api/docs", app.base_url);
    browser.go(&page).await;
    let login = format!(
        "fetch('/api/auth/login', {{ method: 'POST', headers: {{ 'Content-Type': 'application/json' }},
             body: JSON.stringify({{ email: 'ada@example.com', password: '{PASSWORD}' }}) }}).then((answer) => done(answer.status))"
    );
    assert_eq!(browser.run_async(&login).await, 200);
    // This tab refreshes when the other one sends a message.
    browser
        .run(
            "const channel = new BroadcastChannel('refresh');
             channel.onmessage = async ({ data }) => {
                 if (data !== 'go') return;
                 const answer = await fetch('/api/auth/refresh', { method: 'POST' });
                 channel.postMessage(answer.status);
             };",
        )
        .await;
    browser.open_tab().await;
    browser.go(&page).await;
    let rounds = "
        const channel = new BroadcastChannel('refresh');
        (async () => {
            const statuses = [];
            for (let round = 0; round < 20; round++) {
                const other = new Promise((resolve) => { channel.onmessage = ({ data }) => resolve(data); });
                channel.postMessage('go');
                const csrf = document.cookie.match(/csrf_token=([^;]+)/)[1];
                const own = fetch('/api/auth/refresh', { method: 'POST' });
                statuses.push((await own).status, await other);
                // A tab that read the CSRF token before the refresh.
                const written = await fetch('/api/users/me', { method: 'PUT', body: JSON.stringify({ bio: `round ${round}` }),
                    headers: { 'Content-Type': 'application/json', 'X-CSRF-Token': csrf } });
                statuses.push(written.status);
            }
            done(statuses);
        })().catch((error) => done(String(error)));";
    let statuses = browser.run_async(rounds).await;
    assert_eq!(statuses, Value::from(vec![200; 60]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_description_logs_in_and_writes() {
    let (app, browser) = start().await;
    let ada = app.user("ada").password(PASSWORD).create().await;
    browser.go(&format!("{}/api/docs/", app.base_url)).await;
    // Sends a request with the form of the page.
    let call = async |operation: &str, body: Value| {
        browser.find(&format!("#operations-{operation}")).await;
        browser.click(&format!("#operations-{operation} .opblock-summary-control")).await;
        browser.click(&format!("#operations-{operation} .try-out__btn")).await;
        browser.find(&format!("#operations-{operation} textarea.body-param__text")).await;
        let write = format!(
            "const area = document.querySelector('#operations-{operation} textarea.body-param__text');
             const set = Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value').set;
             set.call(area, JSON.stringify({body}));
             area.dispatchEvent(new Event('input', {{ bubbles: true }}));"
        );
        browser.run(&write).await;
        browser.click(&format!("#operations-{operation} .execute")).await;
        browser.find(&format!("#operations-{operation} .live-responses-table .response .response-col_status")).await;
        let status = format!(
            "return document.querySelector('#operations-{operation} .live-responses-table .response .response-col_status').textContent"
        );
        browser.run(&status).await.as_str().unwrap().trim().get(..3).unwrap().to_owned()
    };
    let log_in = json!({"email": "ada@example.com", "password": PASSWORD});
    assert_eq!(call("auth-auth_login", log_in).await, "200");
    assert_eq!(call("users-users_update", json!({"name": "Countess"})).await, "200");
    let profile = ada.get("/api/users/me").await.assert_ok().body;
    assert_eq!(profile["name"], "Countess", "the page wrote the name");
    browser.save_screenshot("api").await;
}
