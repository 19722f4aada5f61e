//! A Redis master with a replica and a Sentinel.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::process::{START_TIMEOUT, Supervised, directory, free_port};
use crate::redis::{Redis, cli, program};

/// The time limit for a failover. Sentinel reconfigures an old master about 10 s after it was replaced.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(60);

/// A Redis master with a replica and a Sentinel that can fail over between them.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: [Redis; 2],
    _sentinel: Supervised,
    port: u16,
}

impl RedisSentinel {
    /// Starts the servers. With `min_replicas`, a master without a replica rejects writes.
    ///
    /// # Errors
    /// Returns an error if Redis is not installed or a server does not start.
    pub async fn start(min_replicas: bool) -> anyhow::Result<Self> {
        let minimum = if min_replicas { "1" } else { "0" };
        let settings = ["--min-replicas-to-write", minimum, "--repl-diskless-sync-delay", "0"];
        let master = Redis::with(&settings).await?;
        let master_port = master.port().to_string();
        let replica = Redis::with(&[&settings[..], &["--replicaof", "127.0.0.1", &master_port]].concat()).await?;
        let replica_port = replica.port().to_string();
        until(START_TIMEOUT, async || {
            Ok(cli(&["-p", &replica_port, "info", "replication"]).await?.contains("master_link_status:up"))
        })
        .await?;
        let home = directory("testbed-sentinel-")?;
        let port = free_port()?;
        let configuration = home.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor m 127.0.0.1 {master_port} 1\n\
             sentinel down-after-milliseconds m 1000\nsentinel failover-timeout m 5000\n",
            home.path().display()
        );
        std::fs::write(&configuration, text)?;
        let command = [program()?.display().to_string(), configuration.display().to_string(), "--sentinel".to_owned()];
        let sentinel = Supervised::start(home, "KILL", &command)?;
        sentinel.until_listening("Redis Sentinel", port).await?;
        let started = Self { servers: [master, replica], _sentinel: sentinel, port };
        until(START_TIMEOUT, async || Ok(started.sentinel(&["replicas", "m"]).await?.contains("name"))).await?;
        Ok(started)
    }

    /// Returns the URL, such as `redis+sentinel://127.0.0.1:26379/m`.
    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/m", self.port)
    }

    /// Promotes the replica without a fault, and returns when Sentinel names it as the master. The old master goes on as a
    /// master until Sentinel demotes it, about 10 s later.
    ///
    /// # Errors
    /// Returns an error if the failover does not succeed.
    pub async fn fail_over(&self) -> anyhow::Result<()> {
        let old = self.master().await?;
        // Refused until Sentinel has seen that the old master of the last failover is a replica.
        until(FAILOVER_TIMEOUT, async || Ok(self.sentinel(&["failover", "m"]).await?.starts_with("OK"))).await?;
        until(FAILOVER_TIMEOUT, async || Ok(self.master().await? != old)).await
    }

    /// Returns the number of servers that say they are masters.
    ///
    /// # Errors
    /// Returns an error if a server does not respond.
    pub async fn masters(&self) -> anyhow::Result<usize> {
        let mut masters = 0;
        for server in &self.servers {
            let role = cli(&["-p", &server.port().to_string(), "role"]).await?;
            masters += usize::from(role.starts_with("master"));
        }
        Ok(masters)
    }

    async fn master(&self) -> anyhow::Result<String> {
        self.sentinel(&["get-master-addr-by-name", "m"]).await
    }

    async fn sentinel(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let port = self.port.to_string();
        cli(&[&["-p", &port, "sentinel"], arguments].concat()).await
    }
}

/// Polls a condition, because servers do not announce it.
async fn until(limit: Duration, mut condition: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !condition().await? {
        if began.elapsed() > limit {
            bail!("Redis Sentinel: no response as expected within {limit:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
