//! Connections: their settings, their pools, and the place where their statements run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deadpool::managed::{PoolError, TimeoutType};
use diesel::connection::InstrumentationEvent;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection as _, QueryResult};
use diesel_async::methods::ExecuteDsl;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use diesel_async::sync_connection_wrapper::{SpawnBlocking, SyncConnectionWrapper};
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use futures_util::future::BoxFuture;
use querywatch::Watch;
use tutord_core::{Error, Result};

use crate::options::DatabaseOptions;

/// A connection of a pool.
pub(crate) type Conn = SyncConnectionWrapper<SqliteConnection, InPlace>;

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

/// The settings of every connection.
pub(super) fn settings(options: &DatabaseOptions) -> String {
    let busy = options.statement_timeout.as_millis();
    format!(
        "PRAGMA busy_timeout = {busy}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16000; "
    )
}

/// Runs statements that the watch does not count.
pub(super) fn unwatched<T>(
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
pub(super) fn pool(
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

/// Statements with one text, as a part of a batch.
pub(super) struct Each<Q>(pub(super) Vec<Q>);

impl<Q> Each<Q> {
    /// Executes the statements one after another. Returns the number of rows.
    pub(super) async fn execute(self, conn: &mut Conn) -> QueryResult<usize>
    where
        Q: ExecuteDsl<Conn>,
    {
        let mut rows = 0;
        for statement in self.0 {
            rows += ExecuteDsl::execute(statement, &mut *conn).await?;
        }
        Ok(rows)
    }
}

/// Acquires a connection.
pub(super) async fn get(pool: &Pool<Conn>) -> Result<Object<Conn>> {
    pool.get().await.map_err(|error| match error {
        PoolError::Timeout(TimeoutType::Wait) => Error::Overloaded,
        other => Error::Unavailable(other.to_string()),
    })
}
