//! A temporary Chromium that tests control by WebDriver.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};

use crate::process::{self, Supervised, directory, free_port};

const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A running chromedriver. Dropping it ends its browsers too.
#[derive(Debug)]
pub struct Chromedriver {
    port: u16,
    profiles: PathBuf,
    server: Supervised,
}

impl Chromedriver {
    /// Starts chromedriver.
    ///
    /// # Errors
    /// Returns an error if chromedriver is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let home = directory("testbed-chromium-")?;
        let profiles = home.path().to_owned();
        let port = free_port()?;
        let command =
            vec![program()?.display().to_string(), format!("--port={port}"), "--allowed-ips=127.0.0.1".to_owned()];
        let driver = Self { port, profiles, server: Supervised::start(home, "TERM", &command)? };
        let began = Instant::now();
        // Polls the port, because chromedriver announces its start by opening it.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > READY_TIMEOUT {
                bail!("chromedriver did not start: {}", driver.server.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(driver)
    }

    /// Returns the URL of the driver.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns the capabilities of a new session: a browser with an empty profile and without background requests.
    ///
    /// # Errors
    /// Returns an error if Chromium is not installed.
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
            // The pipe closes when the driver ends for any reason, which ends the browser too.
            "--remote-debugging-pipe",
        ];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(format!("--user-data-dir={}", profile.display()));
        let options = json!({"binary": chromium()?, "args": arguments});
        Ok(json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}))
    }
}

/// Returns the path of chromedriver.
pub(crate) fn program() -> anyhow::Result<PathBuf> {
    process::program("chromedriver", &[], "chromium-driver")
}

/// Returns the path of Chromium.
pub(crate) fn chromium() -> anyhow::Result<PathBuf> {
    process::program("chromium", &[], "chromium")
}
