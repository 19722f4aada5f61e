//! A throwaway Redis server.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::process::{Supervised, directory, free_port, program};

const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A single server without persistence.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    _server: Supervised,
}

impl Redis {
    /// Starts a server.
    ///
    /// # Errors
    /// When Redis is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let home = directory("testbed-redis-")?;
        let port = free_port()?;
        let program = program("redis-server", &[], "redis-server")?.display().to_string();
        let (port_text, home_text) = (port.to_string(), home.display().to_string());
        let arguments =
            ["--port", &port_text, "--bind", "127.0.0.1", "--dir", &home_text, "--save", "", "--appendonly", "no"];
        let command: Vec<String> = std::iter::once(program).chain(arguments.map(str::to_owned)).collect();
        let redis = Self { port, _server: Supervised::start(&home, &command)? };
        let began = Instant::now();
        // There is no event to wait for: the server opens its port when it is ready.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > READY_TIMEOUT {
                bail!("Redis did not start: {}", std::fs::read_to_string(home.join("server.log")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(redis)
    }

    /// Its address, such as `redis://127.0.0.1:6379`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}
