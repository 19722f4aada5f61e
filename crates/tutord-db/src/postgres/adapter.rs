//! The pool of connections, and the wrappers of every call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{PoolError, TimeoutType};
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolError as Backend, RecyclingMethod,
};
use tutord_core::{Error, Refusal, Result};

use super::connect::{Connector, connect_to, connection_error};
use super::identity_poll::Poll;
use super::lease::Lease;
use super::monitor::Monitor;
use super::overflow::Overflow;
use super::sqlcommenter::Connection;
use super::traffic::CallCount;
use crate::options::DatabaseOptions;
use crate::pool_metrics::PoolMetrics;

/// The time that the client's deadline adds to the server's, which should end a statement first.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// The maximum number of attempts of a call that the server refuses for a transient reason.
const ATTEMPTS: u32 = 3;
/// The maximum wait before a retry. The wait is random, so that two calls that conflicted do not conflict again.
const RETRY_JITTER: Duration = Duration::from_millis(50);

/// A pool of connections to a PostgreSQL primary.
pub struct Postgres {
    pub(super) pool: Pool<Connection>,
    pub(super) metrics: PoolMetrics,
    pub(super) connector: Connector,
    overflow: Arc<Overflow>,
    pub(super) deadline: Duration,
    pub(super) node: Option<u64>,
    /// Increases when connections become outdated: the schema changed, or the server is no longer the primary.
    usable_since: Mutex<Option<Instant>>,
    /// Set if the disk may be full: at the start, and after a write failed for that reason.
    pub(super) may_be_full: AtomicBool,
    pub(super) monitor: Arc<Monitor>,
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
    pub(super) async fn read<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Connection) -> Result<T> + Clone,
    {
        self.repeated(changes_nothing, operation).await
    }

    /// Runs a single statement that writes.
    pub(super) async fn write<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Connection) -> Result<T> + Clone,
    {
        self.repeated(was_not_carried_out, operation).await
    }

    /// Runs statements in a transaction.
    pub(super) async fn transaction<T, F>(&self, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Connection) -> Result<T> + Clone,
    {
        // A COMMIT whose outcome is unknown is no refusal: nothing that may have been committed is repeated.
        self.repeated(changes_nothing, async move |conn: &mut Connection| {
            conn.begin()?;
            let outcome = operation(conn).await;
            conn.end(outcome).await
        })
        .await
    }

    /// Runs a call, and retries it if it was refused for a transient reason and `may_repeat` allows it.
    async fn repeated<T, F>(&self, may_repeat: fn(Refusal) -> bool, operation: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Connection) -> Result<T> + Clone,
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
        F: AsyncFnOnce(&mut Connection) -> Result<T>,
    {
        let call = querywatch::RoundTripCall::begin();
        let mut lease = self.lease().await?;
        lease.connection().state().clear();
        let _round_trips = CallCount::begin(lease.connection().traffic(), call);
        // One call on one connection: only so are rows that are still to come, and statements that are given up, timed.
        let call = querywatch::time_call(async { operation(lease.connection()).await });
        let outcome = tokio::time::timeout(self.deadline, call).await;
        // At the deadline the lease is dropped unfinished, which cancels the statement on the server.
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
