//! The dashboard in a headless Chromium.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::Service;
use testbed::Browser;

/// Serves the dashboard below `/ops`; returns its URL.
async fn serve(service: &Service) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = service.app("/ops");
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_accessible_and_fits_a_phone() {
    let (service, browser) = (Service::new(), Browser::start().await);
    let url = serve(&service).await;
    browser.resize(1_280, 900).await;
    browser.go(&format!("{url}/ops")).await;
    assert_eq!(browser.violations().await, Vec::<Value>::new(), "empty");
    browser.go(&format!("{url}/users/7/posts")).await;
    browser.go(&format!("{url}/markup/1")).await;
    let statement = format!("queries/{}", service.watch.findings()[0].shape.as_deref().unwrap());
    for path in ["", "requests", "requests/1", "queries", &statement, "slow", "findings", "queries/unknown"] {
        browser.resize(1_280, 900).await;
        browser.go(format!("{url}/ops/{path}").trim_end_matches('/')).await;
        assert_eq!(browser.violations().await, Vec::<Value>::new(), "{path}");
        let name = path.split('/').collect::<Vec<_>>().join("-");
        let name = if path == statement { "statement" } else { &name };
        browser.save_screenshot(&format!("querywatch-{name}-dark")).await;
        browser.prefer("light").await;
        browser.save_screenshot(&format!("querywatch-{name}-light")).await;
        // Only tables scroll horizontally.
        browser.resize(390, 844).await;
        let too_wide = "return document.documentElement.scrollWidth > document.documentElement.clientWidth";
        assert_eq!(browser.run(too_wide).await, false, "{path}");
        browser.save_screenshot(&format!("querywatch-{name}-phone")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_shows_new_requests_and_can_pause() {
    let (service, browser) = (Service::new(), Browser::start().await);
    let url = serve(&service).await;
    browser.go(&format!("{url}/ops/requests")).await;
    browser.find("[data-refresh]").await;
    browser.until("document.querySelector('#live-status').textContent === 'Live.'").await;
    let visit = async |count: u32| browser.run(&format!("fetch('/users/{count}/posts')")).await;
    visit(7).await;
    browser.until("document.querySelector('[data-part=requests] tbody tr')?.dataset.key === '1'").await;
    // A new row goes above the row that was there, which keeps its node.
    browser.run("document.querySelector('[data-key=\"1\"]').mark = true").await;
    visit(6).await;
    browser.until("document.querySelector('[data-part=requests] tbody tr')?.dataset.key === '2'").await;
    assert_eq!(browser.run("return document.querySelector('[data-key=\"1\"]').mark").await, true);
    assert_eq!(browser.run("return document.querySelectorAll('[data-part=requests] tbody tr').length").await, 2);
    browser.until("document.querySelector('#live-status').textContent.startsWith('Live. There are new')").await;
    browser.click("#pause").await;
    browser.until("document.querySelector('#live-status').textContent === 'Paused.'").await;
    browser.click("#pause").await;
    browser.until("document.querySelector('#live-status').textContent === 'Live.'").await;
    let loaded = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)").await;
    let elsewhere: Vec<_> =
        loaded.as_array().unwrap().iter().filter(|name| !name.as_str().unwrap().starts_with(&url)).collect();
    assert_eq!(elsewhere, Vec::<&Value>::new(), "no resource of another origin");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_the_same_key_stay_separate() {
    let (service, browser) = (Service::new(), Browser::start().await);
    let url = serve(&service).await;
    browser.go(&format!("{url}/users/7/posts")).await;
    browser.go(&format!("{url}/ops/slow")).await;
    browser.find("[data-refresh]").await;
    browser.until("document.querySelector('#live-status').textContent === 'Live.'").await;
    // Each later update has two copies of the first row, with the same key.
    let copy_first_row = "
        const page = document.documentElement.cloneNode(true);
        const row = page.querySelector('[data-part=slow] tbody tr');
        for (const text of ['second', 'first']) {
            const copy = row.cloneNode(true);
            copy.firstElementChild.textContent = text;
            row.after(copy);
        }
        const html = page.outerHTML;
        window.fetch = async () => new Response(html);";
    browser.run(copy_first_row).await;
    let cell =
        |row: u32| format!("document.querySelector('[data-part=slow] tbody tr:nth-child({row}) > *')?.textContent");
    browser.until(&format!("{} === 'first' && {} === 'second'", cell(2), cell(3))).await;
    assert_eq!(browser.run("return document.querySelectorAll('[data-part=slow] tbody tr').length").await, 9);
}
