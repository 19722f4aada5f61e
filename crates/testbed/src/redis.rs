//! A throwaway Redis server.

use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::process::{self, Supervised, directory, free_port};

const READY_TIMEOUT: Duration = Duration::from_secs(10);

/// A single server without persistence.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    server: Supervised,
}

impl Redis {
    /// Starts a server.
    ///
    /// # Errors
    /// When Redis is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let program = program()?.display().to_string();
        let home = directory("testbed-redis-")?;
        let port = free_port()?;
        let (port_text, home_text) = (port.to_string(), home.path().display().to_string());
        let arguments =
            ["--port", &port_text, "--bind", "127.0.0.1", "--dir", &home_text, "--save", "", "--appendonly", "no"];
        let command: Vec<String> = std::iter::once(program).chain(arguments.map(str::to_owned)).collect();
        let redis = Self { port, server: Supervised::start(home, "KILL", &command)? };
        redis.until_ready().await?;
        Ok(redis)
    }

    /// Its address, such as `redis://127.0.0.1:6379`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends the server as a crash would: connections break, and all keys are lost.
    ///
    /// # Errors
    /// When its supervisor is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.server.kill()
    }

    /// Starts it again, empty and at the same address, after a [`kill`](Self::kill).
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.server.restart()?;
        self.until_ready().await
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        // There is no event to wait for: the server opens its port when it is ready.
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if began.elapsed() > READY_TIMEOUT {
                bail!("Redis did not start: {}", self.server.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

pub(crate) fn program() -> anyhow::Result<PathBuf> {
    process::program("redis-server", &[], "redis-server")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn ping(redis: &Redis) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", redis.port))?;
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 7];
        stream.read_exact(&mut reply)?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_killed_server_is_unreachable_until_its_restart() {
        let mut redis = Redis::start().await.unwrap();
        assert_eq!(ping(&redis).unwrap(), "+PONG\r\n");
        redis.kill().unwrap();
        assert!(ping(&redis).is_err());
        redis.restart().await.unwrap();
        assert_eq!(ping(&redis).unwrap(), "+PONG\r\n");
    }
}
