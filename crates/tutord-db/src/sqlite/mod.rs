//! The SQLite adapter: one write connection and several read connections, in WAL mode.
//!
//! SQLite has one writer at a time regardless of the number of connections, so writers queue here for one connection
//! instead of for a file lock. A commit returns when it is on disk (`synchronous=FULL`).
//!
//! Requires tokio's multi-threaded runtime: statements run in place on a worker thread (see `InPlace`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deadpool::managed::{PoolError, TimeoutType};
use diesel::connection::{AnsiTransactionManager, InstrumentationEvent, SimpleConnection as _};
use diesel::sqlite::SqliteConnection;
use diesel::{Connection as _, QueryResult};
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use diesel_async::{AsyncConnection, RunQueryDsl, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use futures_util::future::BoxFuture;
use querywatch::Watch;
use tutord_core::operations::{
    Administration, ChangeFeed, DatabaseIdentity, IdentityListener, Outbox, PoolStatus, Replica, SchemaState, SeedPlan,
    ServerStatement,
};
use tutord_core::{Error, Refusal, Result, Timestamp};

use crate::migrations::pending;
use crate::options::DatabaseOptions;
use crate::pool_metrics::PoolMetrics;
use crate::probe::{PROBE_KEY, probe_values};
use follow::Follower;
use lock::ServeLock;

mod explain;
mod follow;
mod lock;
mod seed;

/// Runs statements one after the other; SQLite has no round trips to save.
macro_rules! pipelined {
    ($conn:ident, $($query:ident.$method:ident::<$type:ty>),+ $(,)?) => {
        ($($query.$method::<$type>(&mut *$conn).await?),+)
    };
}

/// Locks nothing: a write transaction is always the only one.
macro_rules! locked {
    ($query:expr) => {
        $query
    };
}

/// Locks nothing: see `locked`.
macro_rules! exclusively {
    ($conn:ident, $tables:literal) => {};
}

#[path = "../queries/administration.rs"]
mod administration;
#[path = "../queries/catalogue.rs"]
mod catalogue;
#[path = "../queries/conversations.rs"]
mod conversations;
#[path = "../queries/email_tokens.rs"]
mod email_tokens;
#[path = "../queries/exercises.rs"]
mod exercises;
#[path = "../queries/leaderboards.rs"]
mod leaderboards;
#[path = "../queries/mails.rs"]
mod mails;
#[path = "../queries/messages.rs"]
mod messages;
#[path = "../queries/progress.rs"]
mod progress;
#[path = "../queries/requests.rs"]
mod requests;
#[path = "../queries/sessions.rs"]
mod sessions;
#[path = "../queries/users.rs"]
mod users;

pub(crate) type Conn = SyncConnectionWrapper<SqliteConnection, InPlace>;
pub(crate) type Adapter = Sqlite;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// The maximum wait at the start for another process that migrates.
const MIGRATION_WAIT: Duration = Duration::from_secs(60);

/// Runs a statement on the current worker thread, after handing off the other tasks of that worker.
///
/// This is cheaper than a blocking pool (about 5 instead of 25 µs for each statement), and tokio's task-locals stay
/// visible to the connection's instrumentation.
pub(crate) struct InPlace;

impl SpawnBlocking for InPlace {
    fn spawn_blocking<'a, R>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, std::result::Result<R, Box<dyn std::error::Error + Send + Sync + 'static>>>
    where
        R: Send + 'static,
    {
        Box::pin(async move { Ok(tokio::task::block_in_place(task)) })
    }

    fn get_runtime() -> Self {
        Self
    }
}

/// A SQLite database file.
pub struct Sqlite {
    readers: Pool<Conn>,
    /// The acquisitions of read connections.
    metrics: PoolMetrics,
    writer: Pool<Conn>,
    path: PathBuf,
    settings: String,
    watch: Watch,
    /// Set if the disk may be full: at the start, and after a write failed for that reason.
    may_be_full: AtomicBool,
    /// The lock of a serving process.
    serving: Option<(ServeLock, Follower)>,
}

impl Sqlite {
    /// Opens the file at `path`, and creates it if it is missing.
    ///
    /// # Errors
    /// Returns [`Error::InvalidUrl`] if its directory is missing and may not be created; [`Error::Unavailable`] if the
    /// file can't be created or opened, or another process serves it.
    pub async fn open(path: impl AsRef<Path>, options: &DatabaseOptions) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            if options.creates_directory {
                std::fs::create_dir_all(directory)
                    .map_err(|error| Error::Unavailable(format!("{}: {error}", directory.display())))?;
            } else if !directory.is_dir() {
                return Err(Error::InvalidUrl(format!(
                    "sqlite://{} is in {}, which is not a directory",
                    path.display(),
                    directory.display()
                )));
            }
        }
        // Before anything is written.
        let lock = if options.serves { Some(ServeLock::acquire(&path)?) } else { None };
        let opened = Arc::<AtomicU64>::default();
        let mut store = Self {
            metrics: PoolMetrics::default(),
            readers: pool(&path, options, readers(options.pool_size), "PRAGMA query_only = ON;", &Arc::default())?,
            writer: pool(&path, options, 1, "", &opened)?,
            settings: settings(options),
            watch: options.watch.clone(),
            may_be_full: AtomicBool::new(true),
            path,
            serving: None,
        };
        // The writer comes first: it creates the file and turns WAL on.
        drop(get(&store.writer).await?);
        if let Some(lock) = lock {
            let follower = Follower::begin(store.writer.clone(), opened, options.watch.clone()).await?;
            store.serving = Some((lock, follower));
        }
        Ok(store)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a connection outside of the pools.
    fn own_connection(&self) -> Result<SqliteConnection> {
        let mut conn = SqliteConnection::establish(&self.path.to_string_lossy())
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        tokio::task::block_in_place(|| conn.batch_execute(&self.settings))?;
        Ok(conn)
    }

    /// Runs read-only statements.
    async fn read<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        let mut connection = self.metrics.timed(get(&self.readers)).await?;
        querywatch::call(async { operation(&mut connection).await }).await
    }

    /// Runs a single statement that writes.
    async fn write<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        let mut connection = get(&self.writer).await?;
        let outcome = querywatch::call(async { operation(&mut connection).await }).await;
        if let Err(Error::Refused(Refusal::DiskFull, _)) = &outcome {
            self.may_be_full.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Runs statements in a transaction.
    async fn transaction<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        self.write(async |conn| {
            // IMMEDIATE takes the write lock at once: a transaction that begins as a reader can fail
            // half-way, without waiting, when another process wrote meanwhile.
            conn.spawn_blocking(|inner| AnsiTransactionManager::begin_transaction_sql(inner, "BEGIN IMMEDIATE"))
                .await?;
            let outcome = operation(conn).await;
            administration::end_transaction(conn, outcome).await
        })
        .await
    }
}

/// Returns the number of read connections.
///
/// A statement occupies its thread from the first row to the last. More concurrent statements than cores finish no
/// earlier, and their threads take the processor from the runtime's workers, which read and reject requests meanwhile.
fn readers(pool_size: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    pool_size.min(cores + 1)
}

/// The settings of every connection.
fn settings(options: &DatabaseOptions) -> String {
    let busy = options.statement_timeout.as_millis();
    format!(
        "PRAGMA busy_timeout = {busy}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16000; "
    )
}

/// Runs statements that the watch does not count.
fn unwatched<T>(
    connection: &mut SqliteConnection,
    watch: &Watch,
    work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T>,
) -> QueryResult<T> {
    connection.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    let outcome = work(connection);
    connection.set_instrumentation(watch.instrumentation());
    outcome
}

/// A pool manager that counts the opened connections.
fn pool(
    path: &Path,
    options: &DatabaseOptions,
    size: usize,
    role: &'static str,
    opened: &Arc<AtomicU64>,
) -> Result<Pool<Conn>> {
    let opened = Arc::clone(opened);
    let settings = settings(options) + role;
    let watch = options.watch.clone();
    let mut config = ManagerConfig::default();
    config.recycling_method = RecyclingMethod::Fast;
    config.custom_setup = Box::new(move |url| {
        let (settings, watch) = (settings.clone(), watch.clone());
        opened.fetch_add(1, Ordering::AcqRel);
        Box::pin(async move {
            let mut conn = Conn::establish(url).await?;
            conn.batch_execute(&settings).await.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
            conn.set_instrumentation(watch.instrumentation());
            Ok(conn)
        })
    });
    let manager = AsyncDieselConnectionManager::new_with_config(path.to_string_lossy(), config);
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(options.acquire_timeout))
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .map_err(|error| Error::Unavailable(error.to_string()))
}

async fn get(pool: &Pool<Conn>) -> Result<Object<Conn>> {
    pool.get().await.map_err(|error| match error {
        PoolError::Timeout(TimeoutType::Wait) => Error::Overloaded,
        other => Error::Unavailable(other.to_string()),
    })
}

// Nothing notes what was changed here, only that something was.
#[async_trait]
impl Outbox for Sqlite {
    async fn follow_changes(&self) -> Result<Option<Box<dyn ChangeFeed>>> {
        Ok(self.serving.as_ref().map(|(_, follower)| Box::new(follower.clone()) as Box<dyn ChangeFeed>))
    }

    async fn own_changes(&self, _limit: i64) -> Result<Vec<i64>> {
        Ok(Vec::new())
    }

    async fn acknowledge_changes(&self, _ids: &[i64]) -> Result<()> {
        Ok(())
    }

    async fn purge_changes(&self, _before: Timestamp, _batch: i64) -> Result<usize> {
        Ok(0)
    }
}

#[async_trait]
impl Administration for Sqlite {
    fn backend(&self) -> &'static str {
        "sqlite"
    }

    fn pool(&self) -> PoolStatus {
        self.metrics.status(&self.readers.status())
    }

    async fn migrate(&self) -> Result<Vec<String>> {
        self.schema().await?.check()?;
        let (settings, watch) = (self.settings.clone(), self.watch.clone());
        // On the writer: the commit of any other connection looks like another process's.
        let applied = self.write(async |conn| {
            let outcome = conn.spawn_blocking(move |inner| {
                unwatched(inner, &watch, |inner| {
                    // One process at a time: the lock is taken before anybody looks which migrations are pending.
                    inner.batch_execute(&format!("PRAGMA busy_timeout = {}", MIGRATION_WAIT.as_millis()))?;
                    let outcome = inner.immediate_transaction(|inner| {
                        let applied = inner.run_pending_migrations(MIGRATIONS);
                        let applied = applied.map_err(|error| Error::Migration(error.to_string()))?;
                        Ok::<_, Error>(applied.iter().map(ToString::to_string).collect())
                    });
                    inner.batch_execute(&settings)?;
                    Ok(outcome)
                })
            });
            outcome.await?
        });
        let applied = applied.await?;
        self.write(async |conn| users::backfill_addresses(conn).await).await?;
        Ok(applied)
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        let applied = administration::or_nothing(self.read(async |conn| administration::applied(conn).await).await)?;
        pending::<diesel::sqlite::Sqlite>(&MIGRATIONS, &applied)
    }

    async fn schema(&self) -> Result<SchemaState> {
        let pending = self.pending_migrations().await?;
        let metadata = self.read(async |conn| administration::metadata(conn).await).await;
        Ok(SchemaState { pending, metadata: administration::or_nothing(metadata)? })
    }

    async fn try_write(&self) -> Result<()> {
        let grow = AtomicBool::load(&self.may_be_full, Ordering::Relaxed);
        for value in probe_values(grow) {
            self.write(async |conn| administration::set_metadata(conn, PROBE_KEY, &value).await).await?;
        }
        if grow {
            self.may_be_full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ping(&self) -> Result<Timestamp> {
        self.read(async |conn| {
            diesel::sql_query("SELECT 1").execute(conn).await?;
            // The database has no clock of its own.
            Ok(Timestamp::now())
        })
        .await
    }

    async fn database_identity(&self) -> Result<Option<DatabaseIdentity>> {
        Ok(lock::identity(&self.path))
    }

    fn on_identity(&self, listener: IdentityListener) {
        listener(self.serving.as_ref().map(|(lock, _)| lock.identity()));
    }

    async fn purge_conversations(&self, batch: i64) -> Result<usize> {
        self.transaction(async |conn| administration::purge_conversations(conn, batch).await).await
    }

    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize> {
        self.write(async |conn| administration::purge_expired(conn, before, batch).await).await
    }

    async fn explain(&self, shape: &str) -> Result<Option<String>> {
        tokio::task::block_in_place(|| explain::explain(&self.path, shape))
    }

    async fn server_statements(&self, _limit: i64) -> Result<Option<Vec<ServerStatement>>> {
        Ok(None)
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        Ok(Vec::new())
    }

    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64> {
        let mut conn = self.own_connection()?;
        tokio::task::block_in_place(|| Ok(seed::load(&mut conn, plan, progress)?))
    }
}
