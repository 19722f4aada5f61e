//! A temporary PostgreSQL server, with databases cloned from a migrated template.

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

/// The variable with the URL of a running server, which all test processes then share.
pub const URL_VARIABLE: &str = "TESTBED_POSTGRES_URL";

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The advisory lock that serializes the creation of templates across test processes.
const TEMPLATE_LOCK: i64 = 5_170_238_846_011_907_322;
/// The user that runs the server if this process is root, because PostgreSQL refuses to run as root.
const UNPRIVILEGED: &str = "nobody";

static SHARED: OnceCell<Postgres> = OnceCell::const_new();

/// A server, started by this process or by another one.
#[derive(Debug)]
pub struct Postgres {
    /// The URL without a database, such as `postgres://postgres@127.0.0.1:5432`.
    base: String,
    server: Option<Supervised>,
}

impl Postgres {
    /// Returns the server of `TESTBED_POSTGRES_URL`, or starts one for this process.
    ///
    /// # Errors
    /// Returns an error if PostgreSQL is not installed or does not start.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        SHARED
            .get_or_try_init(async || match std::env::var(URL_VARIABLE) {
                Ok(base) => Ok(Self { base, server: None }),
                Err(_) => Self::start(false).await,
            })
            .await
    }

    /// Starts a server. A `durable` server flushes each commit to disk, as in production, which most tests do not need.
    ///
    /// # Errors
    /// Returns an error if PostgreSQL is not installed or does not start.
    pub async fn start(durable: bool) -> anyhow::Result<Self> {
        let home = Home::new()?;
        home.run(
            "initdb",
            &["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--pgdata"],
        )?;
        home.serve(durable).await
    }

    /// Starts a streaming replica with the application name `name`. Returns once it streams.
    ///
    /// # Errors
    /// Returns an error if the copy fails or the replica does not start.
    pub async fn replica(&self, name: &str) -> anyhow::Result<Self> {
        let home = Home::new()?;
        let primary = format!("--dbname={}", self.url(&format!("?application_name={name}")));
        // Writes the replica's connection settings, which initdb's `trust` authentication accepts.
        home.run("pg_basebackup", &[&primary, "--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"])?;
        let replica = home.serve(false).await?;
        let streams = "SELECT FROM pg_stat_replication WHERE application_name = $1 AND state = 'streaming'";
        let primary = self.client("postgres").await?;
        replica
            .until("stream", async || {
                primary.query_opt(streams, &[&name]).await?.map(drop).context("the primary does not list the replica")
            })
            .await?;
        Ok(replica)
    }

    /// Kills the server as in a crash: connections break, and unwritten data is lost.
    ///
    /// # Errors
    /// Returns an error if another process started the server.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.own()?.kill()
    }

    /// Restarts the server at the same address after [`kill`](Self::kill). It recovers all committed transactions.
    ///
    /// # Errors
    /// Returns an error if another process started the server, or if the server does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.own()?.restart()?;
        self.until_ready().await
    }

    /// Suspends the server's processes: connections stay open and get no response.
    ///
    /// # Errors
    /// Returns an error if another process started the server.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.own()?.pause()
    }

    /// Resumes the server after [`pause`](Self::pause).
    ///
    /// # Errors
    /// Returns an error if another process started the server.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        self.own()?.resume()
    }

    /// Promotes a [`replica`](Self::replica) to a primary, which accepts writes on a new timeline.
    ///
    /// # Errors
    /// Returns an error if the server is not a replica or does not respond.
    pub async fn promote(&self) -> anyhow::Result<()> {
        // The function waits until the promotion is complete.
        let promoted = self.client("postgres").await?.query_one("SELECT pg_promote()", &[]).await?;
        if promoted.get::<_, bool>(0) { Ok(()) } else { bail!("the replica was not promoted") }
    }

    fn own(&mut self) -> anyhow::Result<&mut Supervised> {
        self.server.as_mut().context("the server belongs to another process")
    }

    /// Returns the URL without a database, for [`URL_VARIABLE`].
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// Returns the URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.base)
    }

    /// Connects to a database.
    ///
    /// # Errors
    /// Returns an error if the server rejects the connection.
    pub async fn client(&self, database: &str) -> anyhow::Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Creates an empty database, and returns its URL.
    ///
    /// # Errors
    /// Returns an error if the server rejects the statement.
    pub async fn empty_database(&self) -> anyhow::Result<String> {
        self.create_database("template0").await
    }

    /// Creates a database from the template `name`, and returns its URL. The first process that needs the template
    /// fills it with `migrate`.
    ///
    /// # Errors
    /// Returns an error if the server rejects a statement or `migrate` fails.
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
            // A killed process may have left an incomplete template.
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
        // The server may outlive the test process, and process ids are reused.
        let name = format!("test_{}_{:016x}", std::process::id(), RandomState::new().hash_one(()));
        let admin = self.client("postgres").await?;
        admin.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
        Ok(self.url(&name))
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        self.until("start", async || self.client("postgres").await.map(drop)).await
    }

    /// Polls until `check` succeeds.
    async fn until(&self, what: &str, check: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            match check().await {
                Ok(()) => return Ok(()),
                Err(error) if began.elapsed() > READY_TIMEOUT => {
                    let log = self.server.as_ref().map(Supervised::log).unwrap_or_default();
                    bail!("PostgreSQL did not {what}: {error}\n{log}");
                }
                // Polls the server, which announces its start by opening its port.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// The directory of a new server, and the user of its programs.
struct Home {
    directory: TempDir,
    /// The prefix of commands that must not run as root.
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

    /// Runs a program of PostgreSQL with the data directory as its last argument.
    fn run(&self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let command = self.unprivileged(name)?;
        let (first, rest) = command.split_first().context("a program")?;
        let directory = self.directory.path();
        run(Command::new(first).args(rest).args(arguments).arg(self.data()).current_dir(directory)).map(drop)
    }

    /// Starts the server on its data directory.
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
            // The module is part of the server's package. Its statistics are visible only in databases with the
            // extension.
            "shared_preload_libraries=pg_stat_statements".to_owned(),
        ];
        if !durable {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
        }
        for setting in settings {
            postgres.extend(["-c".to_owned(), setting]);
        }
        // QUIT requests an immediate shutdown: the postmaster ends without a checkpoint, together with its children.
        let server = Supervised::start(self.directory, "QUIT", &postgres)?;
        let started = Postgres { base: format!("postgres://postgres@127.0.0.1:{port}"), server: Some(server) };
        started.until_ready().await?;
        Ok(started)
    }
}

/// Returns the path of a program of PostgreSQL, from the search path or from Debian's directories, newest version
/// first.
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
    async fn databases_of_one_template_are_independent() {
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
    async fn dropping_a_server_removes_its_files() {
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
    async fn a_durable_server_recovers_commits_after_a_crash() {
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
