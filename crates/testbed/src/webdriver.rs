//! A small WebDriver client (<https://www.w3.org/TR/webdriver2/>). Its methods panic, because a failure is that of a test.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::Chromedriver;

/// The name under which the protocol puts an element's id.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// The driver's timeouts in milliseconds, far above the time of a slow page.
const TIMEOUT_MS: u32 = 60_000;

/// <https://github.com/dequelabs/axe-core>
const AXE: &str = include_str!("../vendor/axe.min.js");

/// A browser with one window.
#[derive(Debug)]
pub struct Browser {
    client: reqwest::Client,
    session: String,
    driver: Chromedriver,
}

impl Browser {
    /// Starts a browser.
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let driver = Chromedriver::start().await.unwrap();
        let mut browser = Self { client: reqwest::Client::new(), session: String::new(), driver };
        let capabilities = browser.driver.capabilities().unwrap();
        let session = browser.send(Method::POST, "/session", Some(capabilities)).await;
        browser.session = format!("/session/{}", session["sessionId"].as_str().unwrap());
        browser.post("/timeouts", json!({"implicit": TIMEOUT_MS, "script": TIMEOUT_MS, "pageLoad": TIMEOUT_MS})).await;
        browser
    }

    /// Sends a command; returns the driver's value or error.
    async fn request(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Value> {
        let url = format!("{}{}{path}", self.driver.url(), self.session);
        let mut request = self.client.request(method, &url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let value = response.json::<Value>().await.unwrap()["value"].take();
        if status.is_success() { Ok(value) } else { Err(value) }
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        self.request(method, path, body).await.map_err(|error| format!("{path}: {error:#}")).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.send(Method::POST, path, Some(body)).await
    }

    /// Loads a page.
    pub async fn go(&self, url: &str) {
        self.post("/url", json!({"url": url})).await;
    }

    /// Opens an empty tab and switches to it.
    pub async fn open_tab(&self) {
        let tab = self.post("/window/new", json!({"type": "tab"})).await;
        self.post("/window", json!({"handle": tab["handle"]})).await;
    }

    /// Waits for an element that matches a CSS selector, also on the next page; returns its id.
    pub async fn find(&self, selector: &str) -> String {
        let found = self.post("/element", json!({"using": "css selector", "value": selector})).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Clicks the element that matches a CSS selector.
    pub async fn click(&self, selector: &str) {
        loop {
            let element = self.find(selector).await;
            let clicked = self.request(Method::POST, &format!("/element/{element}/click"), Some(json!({}))).await;
            // A live page has replaced the element.
            if clicked.as_ref().is_err_and(|error| error["error"] == "stale element reference") {
                continue;
            }
            clicked.expect(selector);
            return;
        }
    }

    /// Types a text into the element that matches a CSS selector.
    pub async fn write(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        self.post(&format!("/element/{element}/value"), json!({"text": text})).await;
    }

    /// Runs the body of a function in the page; returns its result.
    pub async fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []})).await
    }

    /// Runs the body of a function in the page; returns the argument of its call of `done`.
    pub async fn run_async(&self, script: &str) -> Value {
        let script = format!("const done = arguments[arguments.length - 1];\n{script}");
        self.post("/execute/async", json!({"script": script, "args": []})).await
    }

    /// Waits until an expression is true; evaluates it at each change of the page. On a page that is loading,
    /// [`find`](Self::find) an element first.
    pub async fn until(&self, expression: &str) {
        let script = format!(
            "const check = () => ({expression});
             if (check()) return done();
             const observer = new MutationObserver(() => {{ if (check()) {{ observer.disconnect(); done(); }} }});
             const everything = {{ subtree: true, childList: true, characterData: true, attributes: true }};
             observer.observe(document, everything);"
        );
        self.run_async(&script).await;
    }

    /// Sets the preferred color scheme: `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.post("/goog/cdp/execute", json!({"cmd": "Emulation.setEmulatedMedia", "params": features})).await;
    }

    /// Sets the size of the window in pixels.
    pub async fn resize(&self, width: u32, height: u32) {
        self.post("/window/rect", json!({"width": width, "height": height})).await;
    }

    /// Returns the window as PNG.
    pub async fn screenshot(&self) -> Vec<u8> {
        STANDARD.decode(self.send(Method::GET, "/screenshot", None).await.as_str().unwrap()).unwrap()
    }

    /// Returns the accessibility violations that axe-core finds on the current page, in light and in dark colors.
    pub async fn violations(&self) -> Vec<Value> {
        self.prefer("light").await;
        self.run(AXE).await;
        let mut found = self.axe("{}").await;
        self.prefer("dark").await;
        // No other rule depends on the colors.
        found.extend(self.axe("{ runOnly: ['color-contrast'] }").await);
        found
    }

    async fn axe(&self, options: &str) -> Vec<Value> {
        let script = format!(
            "axe.run(document, {options}).then(
                 (result) => done(result.violations.map(({{ id, help, nodes }}) =>
                     ({{ id, help, nodes: nodes.map(({{ html, failureSummary }}) => ({{ html, failureSummary }})) }}))),
                 (error) => done([String(error)]))"
        );
        self.run_async(&script).await.as_array().unwrap().clone()
    }

    /// Writes the window as PNG to `target/screenshots` of the workspace.
    pub async fn save_screenshot(&self, name: &str) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/screenshots");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("{name}.png")), self.screenshot().await).unwrap();
    }
}
