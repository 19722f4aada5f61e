//! The pools of connections, and the wrappers of every call.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use diesel::Connection as _;
use diesel::connection::{AnsiTransactionManager, SimpleConnection as _};
use diesel::sqlite::SqliteConnection;
use diesel_async::pooled_connection::deadpool::Pool;
use querywatch::Watch;
use tutord_core::{Error, Refusal, Result};

use super::follow::Follower;
use super::lock::ServeLock;
use super::pool::{Conn, get, pool, settings};
use super::transaction::end_transaction;
use crate::options::DatabaseOptions;
use crate::pool_metrics::PoolMetrics;

/// A SQLite database file.
pub struct Sqlite {
    pub(super) readers: Pool<Conn>,
    /// The acquisitions of read connections.
    pub(super) metrics: PoolMetrics,
    writer: Pool<Conn>,
    pub(super) path: PathBuf,
    pub(super) settings: String,
    pub(super) watch: Watch,
    /// Set if the disk may be full: at the start, and after a write failed for that reason.
    pub(super) may_be_full: AtomicBool,
    /// The lock of a serving process.
    pub(super) serving: Option<(ServeLock, Follower)>,
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
    pub(super) fn own_connection(&self) -> Result<SqliteConnection> {
        let mut conn = SqliteConnection::establish(&self.path.to_string_lossy())
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        tokio::task::block_in_place(|| conn.batch_execute(&self.settings))?;
        Ok(conn)
    }

    /// Runs read-only statements.
    pub(super) async fn read<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        let mut connection = self.metrics.timed(get(&self.readers)).await?;
        querywatch::time_call(async { operation(&mut connection).await }).await
    }

    /// Runs a single statement that writes.
    pub(super) async fn write<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        let mut connection = get(&self.writer).await?;
        let outcome = querywatch::time_call(async { operation(&mut connection).await }).await;
        if let Err(Error::Refused(Refusal::DiskFull, _)) = &outcome {
            self.may_be_full.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Runs statements in a transaction.
    pub(super) async fn transaction<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        self.write(async |conn| {
            // IMMEDIATE takes the write lock at once: a transaction that begins as a reader can fail
            // half-way, without waiting, when another process wrote meanwhile.
            conn.spawn_blocking(|inner| AnsiTransactionManager::begin_transaction_sql(inner, "BEGIN IMMEDIATE"))
                .await?;
            let outcome = operation(conn).await;
            end_transaction(conn, outcome).await
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
