//! A throwaway PostgreSQL server, and databases cloned from a migrated template.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::process::{self, Supervised, directory, free_port, is_root, run};

/// Names a running server for all test processes, so that they share one.
pub const URL_VARIABLE: &str = "TESTBED_POSTGRES_URL";

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Guards the creation of templates against other test processes.
const TEMPLATE_LOCK: i64 = 5_170_238_846_011_907_322;
/// Who runs the server when we are root, which PostgreSQL refuses.
const UNPRIVILEGED: &str = "nobody";

static SHARED: OnceCell<Postgres> = OnceCell::const_new();

/// A server, our own or one that another process started.
#[derive(Debug)]
pub struct Postgres {
    /// Address without the database, such as `postgres://postgres@127.0.0.1:5432`.
    base: String,
    server: Option<Supervised>,
}

impl Postgres {
    /// The server that `TESTBED_POSTGRES_URL` names, or one of this process's own.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        SHARED
            .get_or_try_init(async || match std::env::var(URL_VARIABLE) {
                Ok(base) => Ok(Self { base, server: None }),
                Err(_) => Self::start(false).await,
            })
            .await
    }

    /// Starts a server. A `durable` one flushes each commit to disk, as production does; for tests that
    /// is time lost.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub async fn start(durable: bool) -> anyhow::Result<Self> {
        let home = Home::new()?;
        home.run(
            "initdb",
            &["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--pgdata"],
        )?;
        home.serve(durable).await
    }

    /// Starts a streaming replica, which calls itself `name` to this server; returns once it streams.
    ///
    /// # Errors
    /// When it can't be copied from this server, or does not start.
    pub async fn replica(&self, name: &str) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let primary = format!("--dbname={}", self.url(&format!("?application_name={name}")));
        // With what is needed to follow the primary, which initdb's `trust` lets in.
        home.run("pg_basebackup", &[&primary, "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"])?;
        let replica = home.serve(false).await?;
        let streams = "SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'";
        let primary = self.client("postgres").await?;
        replica
            .until("stream", async || {
                primary.query_opt(streams, &[&name]).await?.map(drop).context("the primary does not know it")
            })
            .await?;
        Ok(replica)
    }

    /// Ends the server as a crash would: connections break, and what was not written yet is lost.
    ///
    /// # Errors
    /// When the server is another process's.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.own()?.kill()
    }

    /// Starts it again, at the same address, after a [`kill`](Self::kill): it recovers what was committed.
    ///
    /// # Errors
    /// When the server is another process's, or does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.own()?.restart()?;
        self.until_ready().await
    }

    /// Stops the server's processes as they are: connections stay open, and none of them is answered.
    ///
    /// # Errors
    /// When the server is another process's.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.own()?.pause()
    }

    /// Ends a [`pause`](Self::pause).
    ///
    /// # Errors
    /// When the server is another process's.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.own()?.resume()
    }

    /// Makes a primary of a [`replica`](Self::replica): it takes writes, on a timeline of its own, from then on.
    ///
    /// # Errors
    /// When it is none, or does not answer.
    pub async fn promote(&self) -> anyhow::Result<()> {
        // Waits until it is done.
        let promoted = self.client("postgres").await?.query_one("SELECT pg_promote()", &[]).await?;
        if promoted.get::<_, bool>(0) { Ok(()) } else { bail!("the replica was not promoted") }
    }

    fn own(&mut self) -> anyhow::Result<&mut Supervised> {
        self.server.as_mut().context("the server belongs to another process")
    }

    /// The address without a database, for [`URL_VARIABLE`].
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// The address of a database.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.base)
    }

    /// A connection to a database.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn client(&self, database: &str) -> anyhow::Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// An empty database; its address.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn empty_database(&self) -> anyhow::Result<String> {
        self.create_database("template0").await
    }

    /// A database like the template `name`, which `migrate` fills the first time that any process asks for it.
    ///
    /// # Errors
    /// When the server refuses, or `migrate` fails.
    pub async fn database_like(
        &self,
        name: &str,
        migrate: impl AsyncFnOnce(String) -> anyhow::Result<()>,
    ) -> anyhow::Result<String> {
        let admin = self.client("postgres").await?;
        admin.execute("SELECT pg_advisory_lock($1)", &[&TEMPLATE_LOCK]).await?;
        let complete = "SELECT datistemplate FROM pg_database WHERE datname = $1";
        let complete = admin.query_opt(complete, &[&name]).await?.map(|row| row.get::<_, bool>(0));
        if complete != Some(true) {
            // Half a template is what a killed process left.
            admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
            admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
            migrate(self.url(name)).await?;
            let close = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
            admin.execute(close, &[&name]).await?;
            admin.batch_execute(&format!("ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false")).await?;
        }
        admin.execute("SELECT pg_advisory_unlock($1)", &[&TEMPLATE_LOCK]).await?;
        self.create_database(name).await
    }

    async fn create_database(&self, template: &str) -> anyhow::Result<String> {
        // A server may outlive many test processes, whose ids come again.
        let name = format!("test_{}_{:016x}", std::process::id(), RandomState::new().hash_one(()));
        let admin = self.client("postgres").await?;
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
        Ok(self.url(&name))
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        self.until("start", async || self.client("postgres").await.map(drop)).await
    }

    /// Until `check` is content.
    async fn until(&self, what: &str, check: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            match check().await {
                Ok(()) => return Ok(()),
                Err(error) if began.elapsed() > READY_TIMEOUT => {
                    let log = self.server.as_ref().map(Supervised::log).unwrap_or_default();
                    bail!("PostgreSQL did not {what}: {error}\n{log}");
                }
                // There is no event to wait for: the server opens its port when it is ready.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// The directory of a server to come, and what runs its programs in it.
struct Home {
    directory: TempDir,
    /// Begins the commands, so that they are not run as root.
    drop_root: Vec<String>,
}

impl Home {
    fn new() -> anyhow::Result<Self> {
        let directory = directory("testbed-postgres-")?;
        let mut drop_root = Vec::new();
        if is_root()? {
            run(Command::new("chown").arg(UNPRIVILEGED).arg(directory.path()))?;
            let user = format!("--reuid={UNPRIVILEGED}");
            let group = format!("--regid={}", run(Command::new("id").args(["-g", UNPRIVILEGED]))?.trim());
            drop_root = ["setpriv", &user, &group, "--clear-groups", "--"].map(str::to_owned).to_vec();
        }
        Ok(Self { directory, drop_root })
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn unprivileged(&self, name: &str) -> anyhow::Result<Vec<String>> {
        Ok([&self.drop_root[..], &[program(name)?.display().to_string()]].concat())
    }

    /// Runs one of the server's programs, whose last argument is the directory of the data.
    fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let command = self.unprivileged(name)?;
        let (first, rest) = command.split_first().context("a program")?;
        let directory = self.directory.path();
        run(Command::new(first).args(rest).args(arguments).arg(self.data()).current_dir(directory)).map(drop)
    }

    /// Starts the server on its data.
    async fn serve(self, durable: bool) -> anyhow::Result<Postgres> {
        let port = free_port()?;
        let mut postgres = self.unprivileged("postgres")?;
        postgres.extend(["-D".to_owned(), self.data().display().to_string()]);
        let mut settings = vec![
            format!("port={port}"),
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={}", self.directory.path().display()),
            "max_connections=300".to_owned(),
            "shared_buffers=256MB".to_owned(),
            // Part of the server's package. It counts nothing that a database without the extension shows.
            "shared_preload_libraries=pg_stat_statements".to_owned(),
        ];
        if !durable {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
        }
        for setting in settings {
            postgres.extend(["-c".to_owned(), setting]);
        }
        // QUIT is the immediate shutdown: the postmaster ends its children and itself, without a checkpoint.
        let server = Supervised::start(self.directory, "QUIT", &postgres)?;
        let started = Postgres { base: format!("postgres://postgres@127.0.0.1:{port}"), server: Some(server) };
        started.until_ready().await?;
        Ok(started)
    }
}

/// One of the server's programs, from the search path or where Debian puts them, newest version first.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let elsewhere: Vec<PathBuf> = versions.into_iter().map(|(_, path)| path).collect();
    process::program(name, &elsewhere, "postgresql")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn databases_like_one_template_are_apart() {
        let postgres = Postgres::shared().await.unwrap();
        let fill = async |url: String| {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            tokio::spawn(connection);
            client.batch_execute("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1)").await?;
            Ok(())
        };
        let first = postgres.database_like("testbed_template", fill).await.unwrap();
        let never = async |_: String| anyhow::bail!("the template was complete");
        let second = postgres.database_like("testbed_template", never).await.unwrap();
        let count = async |url: &str, sql: &str| {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute(sql).await.unwrap();
            client.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get::<_, i64>(0)
        };
        assert_eq!(count(&first, "INSERT INTO t VALUES (2)").await, 2);
        assert_eq!(count(&second, "").await, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dropped_server_is_gone_with_its_files() {
        let server = Postgres::start(false).await.unwrap();
        let base = server.base_url().to_owned();
        let files = server.client("postgres").await.unwrap().query_one("SHOW data_directory", &[]).await.unwrap();
        let files: String = files.get(0);
        assert!(Path::new(&files).exists());
        drop(server);
        assert!(tokio_postgres::connect(&format!("{base}/postgres"), NoTls).await.is_err());
        assert!(!Path::new(&files).exists());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_durable_server_keeps_over_a_crash_what_was_committed() {
        let mut server = Postgres::start(true).await.unwrap();
        let before = server.client("postgres").await.unwrap();
        before.batch_execute("CREATE TABLE t AS SELECT 7 AS n").await.unwrap();
        server.kill().unwrap();
        assert!(server.client("postgres").await.is_err());
        server.restart().await.unwrap();
        let after = server.client("postgres").await.unwrap();
        assert_eq!(after.query_one("SELECT n FROM t", &[]).await.unwrap().get::<_, i32>(0), 7);
    }
}
