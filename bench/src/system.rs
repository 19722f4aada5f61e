//! The system under test: PostgreSQL, Redis, and processes of tutord.

use std::io::{BufRead as _, BufReader};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context as _, bail};
use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;
use redis::aio::MultiplexedConnection;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use testbed::{Postgres, Redis};
use tutord_core::Timestamp;
use tutord_core::model::NewSessionTokens;
use tutord_core::operations::SeedPlan;
use tutord_db::DatabaseOptions;

use crate::client::{Connection, request};
use crate::cores::{on_servers, server_command};

/// Exercises of the catalogue.
pub(crate) const EXERCISES: u64 = 200;

/// Ten for each of the first students, one a day.
const COMPLETIONS: &str = "INSERT INTO user_exercises (user_id, exercise_id, status, grade, points_earned, time_spent_seconds, \
     started_at, completed_at, completed_on, ended_at, created_at, updated_at) \
     SELECT users.id, 1 + (users.id + number) % 200, 'completed', 50 + (users.id * number) % 51, 10 + users.id % 20, 600, \
     at, at, (at AT TIME ZONE 'UTC')::date, at, at, at \
     FROM (SELECT id FROM users WHERE id <= 500) AS users, generate_series(1, 10) AS number, LATERAL (SELECT now() - number * interval '1 day' AS at) AS _";

/// The number of started exercises of each student.
pub(crate) const STARTED: u64 = 20;

/// The `number`-th exercise that a student has started; none of the completed ones.
pub(crate) fn started(student: u64, number: u64) -> u64 {
    1 + (student + 11 + number) % EXERCISES
}

/// The statement that starts exercises: only a started exercise can be completed.
pub(crate) fn start_exercises() -> String {
    format!(
        "INSERT INTO user_exercises (user_id, exercise_id, status, started_at, created_at, updated_at) \
         SELECT users.id, 1 + (users.id + 11 + number) % {EXERCISES}, 'in_progress', now(), now(), now() \
         FROM users, generate_series(0, {STARTED} - 1) AS number"
    )
}

/// Databases and students.
pub(crate) struct System {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    pub(crate) url: String,
    /// An access token of each student; the first has the id 1.
    pub(crate) tokens: Vec<String>,
    pub(crate) tutord: PathBuf,
    pub(crate) directory: TempDir,
}

impl System {
    /// Starts the servers and fills the database: for each student about 10 conversations and 100 messages, for some 10
    /// completed exercises.
    pub(crate) async fn start(tutord: &Path, students: u64) -> anyhow::Result<Self> {
        let (postgres, redis) = on_servers(async { Ok((Postgres::start(true).await?, Redis::start().await?)) }).await?;
        let url = postgres.empty_database().await?;
        // For as long as it is filled; whoever connects later is told nothing of that.
        let database = url.rsplit('/').next().context("a database")?.to_owned();
        let hurry = format!("ALTER DATABASE {database} SET synchronous_commit = off");
        postgres.client(&database).await?.batch_execute(&hurry).await?;
        fill(&url, &plan(students), 1..=students).await?;
        let tokens = (1..=students).map(token).collect();
        let system = Self { postgres, redis, url, tokens, tutord: tutord.to_owned(), directory: tempfile::tempdir()? };
        system.sql(COMPLETIONS).await?;
        system.sql(&start_exercises()).await?;
        system.sql("UPDATE users SET role = 'admin' WHERE id = 2").await?;
        let mut rebuild = Command::new(tutord);
        rebuild.env("RUST_LOG", "error");
        let status = rebuild.args(["rebuild-stats", "--database-url", &system.url]).stdout(Stdio::null()).status()?;
        anyhow::ensure!(status.success(), "tutord rebuild-stats");
        system.sql(&format!("ALTER DATABASE {database} RESET synchronous_commit")).await?;
        system.sql("VACUUM ANALYZE").await?;
        Ok(system)
    }

    /// A conversation of so many messages, of a student of its own; the student.
    pub(crate) async fn add_long_conversation(&self, messages: u64) -> anyhow::Result<u64> {
        let student = self.tokens.len() as u64 + 1;
        let only = SeedPlan { users: 1, conversations: 1, messages, exercises: 0, seed: 43, ..plan(1) };
        fill(&self.url, &only, student..=student).await?;
        Ok(student)
    }

    /// Starts a process of tutord with these further arguments, and waits until it is ready and uses Redis, if it is
    /// to.
    pub(crate) async fn node(&self, arguments: &[&str]) -> anyhow::Result<Node> {
        self.serve(&self.url, self.program(), arguments).await
    }

    /// The program on the servers' cores, to be told what to do.
    pub(crate) fn program(&self) -> Command {
        server_command(&self.tutord)
    }

    /// The request for the counters of a node's cache, by the second student, who is an administrator.
    pub(crate) fn counters(&self) -> Vec<u8> {
        request("GET", "/api/admin/cache", &self.tokens[1], "")
    }

    /// The same on another database, by a command that begins with the program to run.
    pub(crate) async fn serve(&self, url: &str, mut command: Command, arguments: &[&str]) -> anyhow::Result<Node> {
        let redis = self.redis.url();
        let data = self.directory.path().display().to_string();
        let mut process = command
            .args(["serve", "--listen", "127.0.0.1:0", "--database-url", url, "--redis-url", &redis])
            .args(["--data-dir", &data, "--rate-limit-enabled", "false", "--log-format", "json"])
            .args(arguments)
            // The log of each request would be measured, too; the address is logged as info.
            .env("RUST_LOG", "warn,tutord::cli=info")
            // A closed load at saturation is no overload to refuse.
            .env("LOAD_SHEDDING", "false")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("taskset (of Debian's package util-linux)")?;
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
        // Read on, so that it never blocks.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let node = Node { process, address };
        let mut connection = Connection::open(&node.address).await?;
        let ready = request("GET", "/api/health/ready", "", "");
        while connection.send(&ready).await?.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(node)
    }

    /// A connection to Redis that waits as long as it takes.
    pub(crate) async fn redis(&self) -> anyhow::Result<MultiplexedConnection> {
        connect(&self.redis).await
    }

    /// Carries out statements on the main database.
    pub(crate) async fn sql(&self, text: &str) -> anyhow::Result<()> {
        Ok(self.client().await?.batch_execute(text).await?)
    }

    /// A connection to the main database.
    pub(crate) async fn client(&self) -> anyhow::Result<tokio_postgres::Client> {
        self.postgres.client(self.url.rsplit('/').next().context("a database")?).await
    }

    /// `host:port` of PostgreSQL.
    pub(crate) fn postgres_address(&self) -> anyhow::Result<&str> {
        self.postgres.base_url().rsplit('@').next().context("an address")
    }
}

/// A connection to a Redis that waits as long as it takes.
pub(crate) async fn connect(redis: &Redis) -> anyhow::Result<MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(redis::Client::open(redis.url())?.get_multiplexed_async_connection_with_config(&config).await?)
}

/// Rows for that many students.
pub(crate) fn plan(students: u64) -> SeedPlan {
    SeedPlan {
        users: students,
        conversations: students * 10,
        messages: students * 100,
        exercises: EXERCISES,
        seed: 42,
        password_hash: password_hash().to_owned(),
    }
}

/// The password of every student.
pub(crate) const PASSWORD: &str = "Bench-Pass-1";

/// Its hash, as costly to check as those that tutord makes.
pub(crate) fn password_hash() -> &'static str {
    static HASH: LazyLock<String> = LazyLock::new(|| {
        #[expect(clippy::expect_used, reason = "a short password can be hashed")]
        Argon2::default().hash_password(PASSWORD.as_bytes()).expect("a hash").to_string()
    });
    &HASH
}

/// Migrates the database, adds the rows, and logs these students in.
pub(crate) async fn fill(url: &str, plan: &SeedPlan, students: RangeInclusive<u64>) -> anyhow::Result<()> {
    let store = tutord_db::open(url, &DatabaseOptions::default()).await?;
    store.migrate().await?;
    store.seed(plan, &|_| {}).await?;
    log_in(url, students).await
}

/// Begins a session for each of these students.
pub(crate) async fn log_in(url: &str, students: RangeInclusive<u64>) -> anyhow::Result<()> {
    let store = tutord_db::open(url, &DatabaseOptions::default()).await?;
    for student in students {
        let hash = |text: &str| Sha256::digest(text.as_bytes()).into();
        let day = Timestamp::now() + Duration::from_secs(24 * 60 * 60);
        let tokens = NewSessionTokens {
            access: hash(&token(student)),
            access_expires_at: day,
            refresh: hash(&format!("refresh-{student}")),
            refresh_expires_at: day,
        };
        store.create_session(i64::try_from(student)?, tokens).await?;
    }
    Ok(())
}

/// The access token of a student, the same on every database.
pub(crate) fn token(student: u64) -> String {
    format!("{student}.bench-{student:032x}")
}

/// A process that serves, tutord or another; ends when dropped.
pub(crate) struct Node {
    process: Child,
    pub(crate) address: String,
}

impl Node {
    /// The id of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// A process that prints where it listens.
    pub(crate) fn by_first_line(mut process: Child) -> anyhow::Result<Self> {
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("standard output")?).read_line(&mut line)?;
        Ok(Self { process, address: line.trim().to_owned() })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the command that runs this program with other arguments on the servers' cores.
pub(crate) fn own_command(arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = server_command(std::env::current_exe()?);
    command.args(arguments);
    Ok(command)
}

/// Processor time that a process has taken so far, in user and system mode.
pub(crate) fn cpu_time(process: u32) -> anyhow::Result<Duration> {
    // The name, in brackets, may hold spaces. The kernel counts in hundredths of a second, for everybody.
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let ticks = |index: usize| -> anyhow::Result<u64> { Ok(fields.get(index).context("a field")?.parse()?) };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

/// Returns the time for which these cores were busy so far, and all time, in hundredths of a second.
pub(crate) fn busy_time(cores: &[usize]) -> anyhow::Result<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let mut total = (0, 0);
    for core in cores {
        let name = format!("cpu{core} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name)).context("a core")?;
        // User, nice, system, idle, iowait, irq, softirq, steal; guests are part of the users' time.
        let times: Vec<u64> = line.split(' ').take(8).map(str::parse).collect::<Result<_, _>>()?;
        let all: u64 = times.iter().sum();
        total = (total.0 + all - times[3] - times[4], total.1 + all);
    }
    Ok(total)
}

/// A line of a process's memory statistics, such as `VmRSS` (now) or `VmHWM` (at most so far), in bytes.
pub(crate) fn memory(process: u32, name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).context("a line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
