//! The PostgreSQL adapter: one pool to the primary.
//!
//! Every call runs under one wrapper that bounds the wait for a connection and the call itself, and
//! cancels the server's work when the caller goes away: see the `lease` module.

mod commented;
mod connect;
mod explain;
mod identity;
mod lease;
mod outbox;
mod overflow;
mod replicas;
mod seed;
mod server_statements;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool::managed::{PoolError, TimeoutType};
use diesel::migration::MigrationVersion;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as Backend, RecyclingMethod,
};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, RunQueryDsl, SimpleAsyncConnection, TransactionManager};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

pub use commented::Connection;
use connect::connect_to;
pub use connect::{Connector, connect};
use identity::{Monitor, Poll};
use lease::Lease;
use overflow::Overflow;

use crate::acquires::Acquires;
use crate::error::{Error, Result};
use crate::identity::{DatabaseIdentity, IdentityListener};
use crate::model::time::Timestamp;
use crate::open::{StoreOptions, pending};
use crate::seed::SeedPlan;
use crate::store::{Administration, PoolStatus, Replica, ServerStatement};

/// Sends statements in one round trip: all are on the wire before the first answer is awaited.
macro_rules! pipelined {
    ($conn:ident, $($query:ident.$method:ident::<$type:ty>),+ $(,)?) => {{
        let shared: &super::Conn = $conn;
        futures_util::try_join!($(async {
            let mut conn = shared;
            $query.$method::<$type>(&mut conn).await
        }),+)?
    }};
}

/// A query that locks the rows that it finds until the transaction ends. Rows that refer to them can still be inserted.
macro_rules! locked {
    ($query:expr) => {
        $query.for_no_key_update()
    };
}

/// Keeps all others from writing these tables until the transaction ends.
macro_rules! exclusively {
    ($conn:ident, $tables:literal) => {
        diesel::sql_query(concat!("LOCK TABLE ", $tables, " IN SHARE ROW EXCLUSIVE MODE")).execute($conn).await?
    };
}

#[path = "../queries/administration.rs"]
mod administration;
#[path = "../queries/conversations.rs"]
mod conversations;
#[path = "../queries/email_tokens.rs"]
mod email_tokens;
#[path = "../queries/exercises.rs"]
mod exercises;
#[path = "../queries/leaderboards.rs"]
mod leaderboards;
#[path = "../queries/messages.rs"]
mod messages;
#[path = "../queries/progress.rs"]
mod progress;
#[path = "../queries/sessions.rs"]
mod sessions;
#[path = "../queries/users.rs"]
mod users;

pub(crate) type Conn = Connection;
pub(crate) type Adapter = Postgres;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// Chosen once at random: the advisory lock under which one process at a time migrates.
const MIGRATION_LOCK: i64 = 7_261_983_450_118_273_641;

/// What a client-side deadline adds to the server's own, which ends a statement more gently.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// A pool of connections to a PostgreSQL primary.
pub struct Postgres {
    pool: Pool<Conn>,
    acquires: Acquires,
    connector: Connector,
    overflow: Arc<Overflow>,
    deadline: Duration,
    node: Option<u64>,
    monitor: Arc<Monitor>,
    /// Of a process that caches.
    _poll: Option<Poll>,
}

impl Postgres {
    /// Makes the pool. No connection is opened before the first call.
    ///
    /// # Errors
    /// [`Error::InvalidUrl`] for an address that can't be read or asks for unknown TLS.
    pub fn new(url: &str, options: &StoreOptions) -> Result<Self> {
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
                    diesel::ConnectionError::BadConnection("the database became another one meanwhile".to_owned())
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
            acquires: Acquires::default(),
            connector,
            overflow: Arc::new(Overflow::new(options.pool_size)),
            deadline: options.statement_timeout + DEADLINE_GRACE,
            node: options.node,
            monitor,
            _poll: poll,
        })
    }

    async fn lease(&self) -> Result<Lease> {
        // What leads to a database of an earlier term is closed.
        let connect = async {
            loop {
                let connection = self.pool.get().await?;
                if connection.term == self.monitor.term() {
                    return Ok(connection);
                }
                drop(Object::take(connection));
            }
        };
        let connection = self.acquires.timed(connect).await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => Error::Overloaded,
            PoolError::Timeout(_) => Error::Unavailable("connecting took too long".to_owned()),
            PoolError::Backend(Backend::ConnectionError(error)) => Error::Unavailable(error.to_string()),
            PoolError::Backend(Backend::QueryError(error)) => Error::Unavailable(error.to_string()),
            other => Error::Unavailable(other.to_string()),
        })?;
        Ok(Lease::new(connection, self.connector.clone(), self.pool.clone(), Arc::clone(&self.overflow)))
    }

    /// Runs statements that change nothing.
    async fn read<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        let mut lease = self.lease().await?;
        // One call on one connection: only so are rows that are still to come, and statements that are given up, timed.
        let call = querywatch::call(async { operation(lease.connection()).await });
        let outcome = tokio::time::timeout(self.deadline, call).await;
        // Past the deadline the lease is dropped unfinished: the server is told to stop.
        let outcome = outcome.map_err(|_| Error::Timeout)?;
        lease.finish();
        outcome
    }

    /// Runs one statement that changes something.
    async fn write<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        self.read(operation).await
    }

    /// Runs statements of which all take effect or none.
    async fn transaction<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Conn) -> Result<T>,
    {
        self.write(async |conn| {
            <Conn as AsyncConnection>::TransactionManager::begin_transaction(conn).await?;
            let outcome = operation(conn).await;
            administration::end_transaction(conn, outcome).await
        })
        .await
    }
}

#[async_trait]
impl Administration for Postgres {
    fn backend(&self) -> &'static str {
        "postgres"
    }

    fn pool(&self) -> PoolStatus {
        self.acquires.status(&self.pool.status())
    }

    async fn migrate(&self) -> Result<Vec<String>> {
        // A connection of its own: migrations may outlast any statement time-out.
        let connector = self.connector.without_statement_timeout();
        let mut conn = connect(&connector).await.map_err(|error| Error::Unavailable(error.to_string()))?;
        conn.batch_execute(&format!("SELECT pg_advisory_lock({MIGRATION_LOCK})")).await?;
        let mut harness = AsyncMigrationHarness::new(conn);
        let applied = harness.run_pending_migrations(MIGRATIONS).map(|versions| names(&versions));
        let mut conn = harness.into_inner();
        conn.batch_execute(&format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})")).await?;
        applied.map_err(|error| Error::Migration(error.to_string()))
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        self.read(async |conn| pending::<diesel::pg::Pg>(&MIGRATIONS, &administration::applied(conn).await?)).await
    }

    async fn ping(&self) -> Result<Timestamp> {
        self.read(async |conn| {
            let now = diesel::dsl::sql::<crate::sql_types::Instant>("clock_timestamp()");
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
