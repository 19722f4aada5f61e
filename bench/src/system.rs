//! The system under test: a PostgreSQL and a Redis of its own, and tutord as processes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use testbed::{Postgres, Redis};
use tutord_store::model::NewSessionTokens;
use tutord_store::seed::SeedPlan;
use tutord_store::{Store, StoreOptions, Timestamp};

use crate::client::{Connection, request};

/// Databases and students.
pub(crate) struct System {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    pub(crate) url: String,
    /// An access token of each student; the first has the id 1.
    pub(crate) tokens: Vec<String>,
    directory: TempDir,
}

impl System {
    /// Starts the servers and fills the database: for each student about 10 conversations and 100 messages.
    pub(crate) async fn start(students: u64) -> anyhow::Result<Self> {
        let (postgres, redis) = (Postgres::start(true).await?, Redis::start().await?);
        let url = postgres.empty_database().await?;
        let store = tutord_store::open(&url, &StoreOptions::default()).await?;
        store.migrate().await?;
        let plan = SeedPlan {
            users: students,
            conversations: students * 10,
            messages: students * 100,
            exercises: 200,
            seed: 42,
            password_hash: "nobody logs in by password".to_owned(),
        };
        store.seed(&plan, &|_| {}).await?;
        let mut tokens = Vec::new();
        for student in 1..=students {
            tokens.push(log_in(store.as_ref(), i64::try_from(student)?).await?);
        }
        Ok(Self { postgres, redis, url, tokens, directory: tempfile::tempdir()? })
    }

    /// Starts a process of tutord with these further arguments, and waits until it is ready and uses Redis, if it is
    /// to.
    pub(crate) async fn node(&self, tutord: &Path, arguments: &[&str]) -> anyhow::Result<Node> {
        let redis = self.redis.url();
        let data = self.directory.path().display().to_string();
        let mut process = Command::new(tutord)
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", &self.url, "--redis-url", &redis])
            .args(["--data-dir", &data, "--rate-limit-enabled", "false", "--log-format", "json"])
            .args(arguments)
            // The log of each request would be measured, too; the address is logged as info.
            .env("RUST_LOG", "warn,tutord::commands=info")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{}: is it built?", tutord.display()))?;
        let log = process.stderr.take().context("the log")?;
        let mut lines = BufReader::new(log).lines();
        let address = loop {
            let Some(line) = lines.next() else { bail!("tutord ended before it served") };
            let line: serde_json::Value = serde_json::from_str(&line?)?;
            if let Some(address) = line["address"].as_str() {
                break address.to_owned();
            }
            eprintln!("{line}");
        };
        // Read on, so that it never blocks; what is worse than expected is shown.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let node = Node { process, address };
        let mut connection = Connection::open(&node.address).await?;
        let ready = request("GET", "/api/health/ready", "", "");
        while connection.send(&ready).await?.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(node)
    }
}

/// A process of tutord; ends when dropped.
pub(crate) struct Node {
    process: Child,
    pub(crate) address: String,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn log_in(store: &dyn Store, student: i64) -> anyhow::Result<String> {
    let token = format!("bench-{:032x}", rand::random::<u128>());
    let hash = |text: &str| Sha256::digest(text.as_bytes()).into();
    let day = Duration::from_secs(24 * 60 * 60);
    let tokens = NewSessionTokens {
        access: hash(&token),
        access_expires_at: Timestamp::now() + day,
        refresh: hash(&format!("refresh-{token}")),
        refresh_expires_at: Timestamp::now() + day,
    };
    store.create_session(student, tokens).await?;
    Ok(token)
}

/// The first line that a process prints.
pub(crate) fn first_line(process: &mut Child) -> anyhow::Result<String> {
    let mut line = String::new();
    BufReader::new(process.stdout.take().context("standard output")?).read_line(&mut line)?;
    Ok(line.trim().to_owned())
}
