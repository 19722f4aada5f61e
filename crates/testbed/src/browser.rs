//! A throwaway Chromium that is driven by WebDriver.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use crate::process::{self, Supervised, directory, free_port};

const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A chromedriver. The browsers that it starts end with it.
#[derive(Debug)]
pub struct Chromedriver {
    port: u16,
    profiles: PathBuf,
    server: Supervised,
}

impl Chromedriver {
    /// Starts it.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let home = directory("testbed-chromium-")?;
        let profiles = home.path().to_owned();
        let port = free_port()?;
        let command =
            vec![program()?.display().to_string(), format!("--port={port}"), "--allowed-ips=127.0.0.1".to_owned()];
        let driver = Self { port, profiles, server: Supervised::start(home, "TERM", &command)? };
        let began = Instant::now();
        // There is no event to wait for: it opens its port when it is ready.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > READY_TIMEOUT {
                bail!("chromedriver did not start: {}", driver.server.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(driver)
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What to ask a new session for: a browser with an empty profile that calls nobody by itself.
    ///
    /// # Errors
    /// When Chromium is not installed.
    pub fn capabilities(&self) -> anyhow::Result<Value> {
        let profile = tempfile::Builder::new().prefix("profile-").tempdir_in(&self.profiles)?.keep();
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // By a pipe, which closes when the driver ends, however it ends: then the browser ends too.
            "--remote-debugging-pipe",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let options = json!({"binary": chromium()?, "args": arguments});
        Ok(json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}))
    }
}

/// The driver's program.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    process::program("chromedriver", &[], "chromium-driver")
}

/// The browser's program.
pub(crate) fn chromium() -> anyhow::Result<PathBuf> {
    process::program("chromium", &[], "chromium")
}
