//! The PostgreSQL adapter: one pool to the primary.
//!
//! Every call runs in a wrapper that limits the wait for a connection and the call itself, and cancels the server's
//! work if the caller goes away: see the `lease` module.

mod connect;
mod explain;
mod identity;
mod lease;
mod monitor;
mod outbox;
mod overflow;
mod replicas;
mod seed;
mod server_statements;
mod sqlcommenter;
mod sqlstate;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use deadpool::managed::{PoolError, TimeoutType};
use diesel::migration::MigrationVersion;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as Backend, RecyclingMethod,
};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, RunQueryDsl, SimpleAsyncConnection, TransactionManager};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

pub use connect::{Connector, connect};
use connect::{connect_to, connection_error};
use identity::Poll;
use lease::Lease;
use monitor::Monitor;
use overflow::Overflow;
pub use sqlcommenter::Connection;
use tutord_core::operations::{
    Administration, DatabaseIdentity, IdentityListener, PoolStatus, Replica, SchemaState, SeedPlan, ServerStatement,
};
use tutord_core::{Error, Refusal, Result, Timestamp};

use crate::migrations::pending;
use crate::options::DatabaseOptions;
use crate::pool_metrics::PoolMetrics;
use crate::probe::{PROBE_KEY, probe_values};

/// Sends statements in one round trip: all are sent before the first result is awaited.
macro_rules! pipelined {
    ($conn:ident, $($query:ident.$method:ident::<$type:ty>),+ $(,)?) => {{
        let shared: &super::Conn = $conn;
        futures_util::try_join!($(async {
            let mut conn = shared;
            $query.$method::<$type>(&mut conn).await
        }),+)?
    }};
}

/// Locks the rows of a query until the transaction ends. Rows that refer to them can still be inserted.
macro_rules! locked {
    ($query:expr) => {
        $query.for_no_key_update()
    };
}

/// Locks these tables against other writers until the transaction ends.
macro_rules! exclusively {
    ($conn:ident, $tables:literal) => {
        diesel::sql_query(concat!("LOCK TABLE ", $tables, " IN SHARE ROW EXCLUSIVE MODE")).execute($conn).await?
    };
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

pub(crate) type Conn = Connection;
pub(crate) type Adapter = Postgres;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The advisory lock of migrations; a random constant.
const MIGRATION_LOCK: i64 = 7_261_983_450_118_273_641;

/// The time that the client's deadline adds to the server's, which should end a statement first.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// The maximum number of attempts of a call that the server refuses for a transient reason.
const ATTEMPTS: u32 = 3;
/// The maximum wait before a retry. The wait is random, so that two calls that conflicted do not conflict again.
const RETRY_JITTER: Duration = Duration::from_millis(50);

/// A pool of connections to a PostgreSQL primary.
pub struct Postgres {
    pool: Pool<Conn>,
    metrics: PoolMetrics,
    connector: Connector,
    overflow: Arc<Overflow>,
    deadline: Duration,
    node: Option<u64>,
    /// Increases when connections become outdated: the schema changed, or the server is no longer the primary.
    usable_since: Mutex<Option<Instant>>,
    /// Set if the disk may be full: at the start, and after a write failed for that reason.
    may_be_full: AtomicBool,
    monitor: Arc<Monitor>,
    /// The outbox state of a process with a cache.
    _poll: Option<Poll>,
}

impl Postgres {
    /// Creates the pool. Opens no connection before the first call.
    ///
    /// # Errors
    /// Returns [`Error::InvalidUrl`] if the URL is malformed or has an unknown `sslmode`.
    pub fn new(url: &str, options: &DatabaseOptions) -> Result<Self> {
        let connector = Connector::new(url, options)?;
        let mut config = ManagerConfig::default();
        // `Verified` would add a round trip to every checkout; a closed connection is seen without one.
        config.recycling_method = RecyclingMethod::Fast;
        let monitor = Arc::<Monitor>::default();
        let (establish, observing, identify) = (connector.clone(), Arc::clone(&monitor), options.node.is_some());
        config.custom_setup = Box::new(move |_| {
            let (connector, monitor) = (establish.clone(), Arc::clone(&observing));
            Box::pin(async move {
                let since = monitor.term();
                let (mut conn, identity) = connect_to(&connector, identify).await?;
                conn.term = monitor.observe(identity, since).ok_or_else(|| {
                    diesel::ConnectionError::BadConnection(
                        "the connection leads to another database than before".to_owned(),
                    )
                })?;
                Ok(conn)
            })
        });
        let manager = AsyncDieselConnectionManager::new_with_config(url, config);
        let pool = Pool::builder(manager)
            .max_size(options.pool_size + options.max_overflow)
            .wait_timeout(Some(options.acquire_timeout))
            .create_timeout(Some(options.acquire_timeout))
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let poll = identify.then(|| Poll::start(connector.clone(), Arc::clone(&monitor)));
        Ok(Self {
            pool,
            metrics: PoolMetrics::default(),
            connector,
            overflow: Arc::new(Overflow::new(options.pool_size)),
            deadline: options.statement_timeout + DEADLINE_GRACE,
            node: options.node,
            usable_since: Mutex::default(),
            may_be_full: AtomicBool::new(true),
            monitor,
            _poll: poll,
        })
    }

    async fn lease(&self) -> Result<Lease> {
        // What leads to a database of an earlier term, or was prepared for an earlier schema, is closed.
        let connect = async {
            loop {
                let connection = self.pool.get().await?;
                let usable_since = *self.usable_since.lock().unwrap_or_else(PoisonError::into_inner);
                let is_usable = usable_since.is_none_or(|since| Object::metrics(&connection).created >= since);
                if is_usable && connection.term == self.monitor.term() {
                    return Ok(connection);
                }
                drop(Object::take(connection));
            }
        };
        let connection = self.metrics.timed(connect).await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => Error::Overloaded,
            PoolError::Timeout(_) => Error::Unavailable("connecting timed out".to_owned()),
            PoolError::Backend(Backend::ConnectionError(error)) => connection_error(error),
            PoolError::Backend(Backend::QueryError(error)) => error.into(),
            other => Error::Unavailable(other.to_string()),
        })?;
        Ok(Lease::new(connection, self.connector.clone(), self.pool.clone(), Arc::clone(&self.overflow)))
    }

    /// Runs read-only statements.
    async fn read<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T> + Clone,
    {
        self.repeated(changes_nothing, operation).await
    }

    /// Runs a single statement that writes.
    async fn write<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T> + Clone,
    {
        self.repeated(was_not_carried_out, operation).await
    }

    /// Runs statements in a transaction.
    async fn transaction<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T> + Clone,
    {
        // A COMMIT whose outcome is unknown is no refusal: nothing that may have been committed is repeated.
        self.repeated(changes_nothing, async move |conn: &mut Conn| {
            <Conn as AsyncConnection>::TransactionManager::begin_transaction(conn).await?;
            let outcome = operation(conn).await;
            administration::end_transaction(conn, outcome).await
        })
        .await
    }

    /// Runs a call, and retries it if it was refused for a transient reason and `may_repeat` allows it.
    async fn repeated<T, F>(&self, may_repeat: fn(Refusal) -> bool, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T> + Clone,
    {
        let mut attempt = 1;
        loop {
            match self.attempt(operation.clone()).await {
                Err(error) if attempt < ATTEMPTS && error.refusal().is_some_and(may_repeat) => {
                    tracing::debug!(%error, attempt, "retrying a database call");
                    tokio::time::sleep(RETRY_JITTER.mul_f64(rand::random())).await;
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn attempt<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        let mut lease = self.lease().await?;
        lease.connection().state().clear();
        // One call on one connection: only so are rows that are still to come, and statements that are given up, timed.
        let call = querywatch::call(async { operation(lease.connection()).await });
        let outcome = tokio::time::timeout(self.deadline, call).await;
        // Past the deadline the lease is dropped unfinished: the server is told to stop.
        let outcome = outcome.map_err(|_| Error::Timeout)?;
        let error = match outcome {
            Ok(value) => {
                lease.finish();
                return Ok(value);
            }
            Err(error) => error,
        };
        let code = lease.connection().state().get();
        let error = error.with_sqlstate(code.as_deref());
        match code.as_deref().and_then(Refusal::from_sqlstate) {
            Some(Refusal::StalePlan | Refusal::ReadOnly) => {
                *self.usable_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                lease.discard();
            }
            Some(Refusal::Restarting | Refusal::ConnectionLost) => lease.discard(),
            Some(Refusal::DiskFull) => {
                self.may_be_full.store(true, Ordering::Relaxed);
                lease.finish();
            }
            _ => lease.finish(),
        }
        Err(error)
    }
}

/// Returns `true` if the server certainly executed nothing of a refused single statement.
const fn was_not_carried_out(refusal: Refusal) -> bool {
    matches!(refusal, Refusal::Contention | Refusal::StalePlan | Refusal::TooManyConnections)
}

/// Returns `true` if a retry can help a call that certainly changed nothing.
const fn changes_nothing(refusal: Refusal) -> bool {
    was_not_carried_out(refusal) || matches!(refusal, Refusal::ConnectionLost | Refusal::Restarting)
}

#[async_trait]
impl Administration for Postgres {
    fn backend(&self) -> &'static str {
        "postgres"
    }

    fn pool(&self) -> PoolStatus {
        self.metrics.status(&self.pool.status())
    }

    async fn migrate(&self) -> Result<Vec<String>> {
        // A connection of its own: migrations may outlast any statement time-out.
        let connector = self.connector.without_statement_timeout();
        let mut conn = connect(&connector).await.map_err(connection_error)?;
        let lock = format!("pg_try_advisory_lock({MIGRATION_LOCK})");
        if !diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(&lock)).get_result(&mut conn).await? {
            tracing::info!("another process is migrating the database; waiting for it");
            conn.batch_execute(&format!("SELECT pg_advisory_lock({MIGRATION_LOCK})")).await?;
        }
        self.schema().await?.check()?;
        let mut harness = AsyncMigrationHarness::new(conn);
        let applied = harness.run_pending_migrations(MIGRATIONS).map(|versions| names(&versions));
        let mut conn = harness.into_inner();
        let applied = applied.map_err(|error| Error::Migration(error.to_string()))?;
        users::backfill_addresses(&mut conn).await?;
        conn.batch_execute(&format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})")).await?;
        Ok(applied)
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        let applied = administration::or_nothing(self.read(async |conn| administration::applied(conn).await).await)?;
        pending::<diesel::pg::Pg>(&MIGRATIONS, &applied)
    }

    async fn schema(&self) -> Result<SchemaState> {
        let pending = self.pending_migrations().await?;
        let metadata = self.read(async |conn| administration::metadata(conn).await).await;
        Ok(SchemaState { pending, metadata: administration::or_nothing(metadata)? })
    }

    async fn try_write(&self) -> Result<()> {
        let grow = AtomicBool::load(&self.may_be_full, Ordering::Relaxed);
        for value in probe_values(grow) {
            self.transaction(async |conn| administration::set_metadata(conn, PROBE_KEY, &value).await).await?;
        }
        if grow {
            self.may_be_full.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn ping(&self) -> Result<Timestamp> {
        self.read(async |conn| {
            let now = diesel::dsl::sql::<tutord_core::sql_types::Instant>("clock_timestamp()");
            Ok(diesel::select(now).get_result(conn).await?)
        })
        .await
    }

    async fn database_identity(&self) -> Result<Option<DatabaseIdentity>> {
        let client = self.connector.client().await?;
        let answer = client.simple_query(identity::READ).await;
        Ok(identity::parse(&answer.map_err(|error| Error::Unavailable(connect::describe(&error)))?))
    }

    fn on_identity(&self, listener: IdentityListener) {
        self.monitor.listen(listener);
    }

    async fn purge_conversations(&self, batch: i64) -> Result<usize> {
        self.transaction(async |conn| administration::purge_conversations(conn, batch).await).await
    }

    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize> {
        self.write(async |conn| administration::purge_expired(conn, before, batch).await).await
    }

    async fn explain(&self, shape: &str) -> Result<Option<String>> {
        explain::explain(&self.connector, shape).await
    }

    async fn server_statements(&self, limit: i64) -> Result<Option<Vec<ServerStatement>>> {
        self.read(async |conn| server_statements::read(conn, limit).await).await
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        self.read(async |conn| replicas::read(conn).await).await
    }

    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64> {
        seed::load(&self.connector, plan, progress).await
    }
}

fn names(versions: &[MigrationVersion<'_>]) -> Vec<String> {
    versions.iter().map(ToString::to_string).collect()
}
