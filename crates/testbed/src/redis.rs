//! A temporary Redis server.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;

use crate::process::{self, START_TIMEOUT, Supervised, directory, free_port};

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
    /// Returns an error if Redis is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with(&[]).await
    }

    pub(crate) async fn with(more: &[&str]) -> anyhow::Result<Self> {
        let program = program()?.display().to_string();
        let home = directory("testbed-redis-")?;
        let port = free_port()?;
        let (port_text, home_text) = (port.to_string(), home.path().display().to_string());
        let arguments =
            ["--port", &port_text, "--bind", "127.0.0.1", "--dir", &home_text, "--save", "", "--appendonly", "no"];
        let arguments = arguments.iter().chain(more).map(|&argument| argument.to_owned());
        let command: Vec<String> = std::iter::once(program).chain(arguments).collect();
        let redis = Self { port, server: Supervised::start(home, "KILL", &command)? };
        redis.until_ready().await?;
        Ok(redis)
    }

    /// Returns the URL, such as `redis://127.0.0.1:6379`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server as in a crash: connections break, and all keys are lost.
    ///
    /// # Errors
    /// Returns an error if the supervisor has ended.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.server.kill()
    }

    /// Restarts the server at the same address after [`kill`](Self::kill), without keys.
    ///
    /// # Errors
    /// Returns an error if the server does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.server.restart()?;
        self.until_ready().await
    }

    /// Suspends the server: connections stay open and get no response.
    ///
    /// # Errors
    /// Returns an error if the supervisor has ended.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.server.pause()
    }

    /// Resumes the server after [`pause`](Self::pause). It responds to the pending commands.
    ///
    /// # Errors
    /// Returns an error if the supervisor has ended.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.server.resume()
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        self.server.until_listening("Redis", self.port).await
    }
}

/// A Redis Cluster of three servers, of which one can have a replica.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
    replica: Option<Redis>,
}

impl RedisCluster {
    /// Starts the servers and joins them to a cluster.
    ///
    /// # Errors
    /// Returns an error if Redis is not installed or a server does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(Self::server().await?);
        }
        let cluster = Self { nodes, replica: None };
        let addresses = cluster.addresses();
        let mut create = vec!["--cluster", "create"];
        create.extend(addresses.iter().map(String::as_str));
        create.push("--cluster-yes");
        cli(&create).await?;
        let began = Instant::now();
        for node in &cluster.nodes {
            let port = node.port.to_string();
            while !cli(&["-p", &port, "cluster", "info"]).await?.contains("cluster_state:ok") {
                if began.elapsed() > START_TIMEOUT {
                    bail!("the Redis Cluster did not form: {}", node.server.log());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(cluster)
    }

    async fn server() -> anyhow::Result<Redis> {
        let bus = free_port()?.to_string();
        Redis::with(&["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-require-full-coverage", "no"])
            .await
    }

    /// Starts a replica of one of the servers.
    ///
    /// # Errors
    /// Returns an error if the replica does not start or does not receive the data.
    pub async fn add_replica(&mut self, of: usize) -> anyhow::Result<()> {
        let replica = Self::server().await?;
        let (address, port) = (format!("127.0.0.1:{}", replica.port), replica.port.to_string());
        let master = self.nodes[of].port.to_string();
        let id = cli(&["-p", &master, "cluster", "myid"]).await?;
        let any = format!("127.0.0.1:{master}");
        cli(&["--cluster", "add-node", &address, &any, "--cluster-slave", "--cluster-master-id", id.trim()]).await?;
        let began = Instant::now();
        while !cli(&["-p", &port, "info", "replication"]).await?.contains("master_link_status:up") {
            if began.elapsed() > START_TIMEOUT {
                bail!("the replica did not connect: {}", replica.server.log());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.replica = Some(replica);
        Ok(())
    }

    /// Makes the replica a master, without the consent of the others.
    ///
    /// # Errors
    /// Returns an error if there is no replica or it does not respond.
    pub async fn promote_replica(&self) -> anyhow::Result<()> {
        let Some(replica) = &self.replica else { bail!("the cluster has no replica") };
        cli(&["-p", &replica.port.to_string(), "cluster", "failover", "takeover"]).await?;
        Ok(())
    }

    /// Returns the index, 0 to 2, of the server that holds a key.
    ///
    /// # Errors
    /// Returns an error if the first server does not respond.
    pub async fn server_of(&self, key: &str) -> anyhow::Result<usize> {
        let port = self.nodes[0].port.to_string();
        let slot: usize = cli(&["-p", &port, "cluster", "keyslot", key]).await?.trim().parse()?;
        // `create` splits the slots evenly, in the order of the servers.
        Ok((0..3).rev().find(|index| slot * 3 >= index * 16_384).unwrap_or(0))
    }

    /// Begins the migration of a key's slot to another server. Existing keys stay where they are.
    ///
    /// # Errors
    /// Returns an error if a server does not respond.
    pub async fn begin_migration(&self, key: &str, to: usize) -> anyhow::Result<()> {
        let from = self.server_of(key).await?;
        let (from_port, to_port) = (self.nodes[from].port.to_string(), self.nodes[to].port.to_string());
        let slot = cli(&["-p", &from_port, "cluster", "keyslot", key]).await?;
        let (from_id, to_id) =
            (cli(&["-p", &from_port, "cluster", "myid"]).await?, cli(&["-p", &to_port, "cluster", "myid"]).await?);
        cli(&["-p", &to_port, "cluster", "setslot", slot.trim(), "importing", from_id.trim()]).await?;
        cli(&["-p", &from_port, "cluster", "setslot", slot.trim(), "migrating", to_id.trim()]).await?;
        Ok(())
    }

    /// Kills one of the servers.
    ///
    /// # Errors
    /// Returns an error if its supervisor has ended.
    pub fn kill(&mut self, server: usize) -> anyhow::Result<()> {
        self.nodes[server].kill()
    }

    /// Stops one of the servers from responding.
    ///
    /// # Errors
    /// Returns an error if its supervisor has ended.
    pub fn pause(&mut self, server: usize) -> anyhow::Result<()> {
        self.nodes[server].pause()
    }

    /// Lets a paused server respond again.
    ///
    /// # Errors
    /// Returns an error if its supervisor has ended.
    pub fn resume(&mut self, server: usize) -> anyhow::Result<()> {
        self.nodes[server].resume()
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect()
    }

    /// Returns the URL, such as `redis+cluster://127.0.0.1:7000,127.0.0.1:7001,127.0.0.1:7002`.
    pub fn url(&self) -> String {
        format!("redis+cluster://{}", self.addresses().join(","))
    }
}

pub(crate) async fn cli(arguments: &[&str]) -> anyhow::Result<String> {
    let program = process::program("redis-cli", &[], "redis-tools")?;
    let output = tokio::process::Command::new(program).args(arguments).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("redis-cli: {text} {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

pub(crate) fn program() -> anyhow::Result<PathBuf> {
    process::program("redis-server", &[], "redis-server")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

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
