//! Statements with a comment that names their request and route.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{CacheSize, Instrumentation};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AsQuery, AstPass, Query, QueryFragment, QueryId};
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{
    AnsiTransactionManager, AsyncConnection, AsyncConnectionCore, AsyncPgConnection, SimpleAsyncConnection,
};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join};

use super::sqlstate::SqlState;
use super::traffic::Traffic;

/// A connection that appends [`querywatch::sql_comment`] to each statement, if enabled, and sends `BEGIN` with the first
/// statement of a transaction.
///
/// Without comments, texts stay unchanged, and statements are prepared once.
pub struct Connection {
    inner: AsyncPgConnection,
    state: SqlState,
    traffic: Arc<Traffic>,
    comments: bool,
    /// Set if the next statement begins a transaction.
    begin: AtomicBool,
    /// The term of the database's identity when the connection was opened.
    pub(super) term: u64,
}

impl Connection {
    pub(super) const fn new(inner: AsyncPgConnection, state: SqlState, traffic: Arc<Traffic>, comments: bool) -> Self {
        Self { inner, state, traffic, comments, begin: AtomicBool::new(false), term: 0 }
    }

    /// The round trips of the connection.
    pub(super) const fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Sets whether the next statement begins a transaction. Returns the value before.
    pub(super) fn set_begin(&mut self, begin: bool) -> bool {
        std::mem::replace(self.begin.get_mut(), begin)
    }

    /// The latest SQLSTATE of the server.
    pub(super) const fn state(&self) -> &SqlState {
        &self.state
    }

    pub(super) const fn inner(&self) -> &AsyncPgConnection {
        &self.inner
    }

    fn commented<Q: QueryFragment<Pg>>(&self, query: Q) -> Commented<Q> {
        let query = Commented { query, comment: if self.comments { querywatch::sql_comment() } else { None } };
        // diesel prepares such a statement for this use alone, and without an event.
        if !matches!(query.is_safe_to_cache_prepared(&Pg), Ok(true)) {
            self.traffic.prepare();
        }
        query
    }

    /// Sends `BEGIN` in front of a statement, if the statement is the first of a transaction.
    fn begun<'a, T>(&'a self, statement: BoxFuture<'a, QueryResult<T>>) -> BoxFuture<'a, QueryResult<T>>
    where
        T: Send + 'a,
    {
        if !self.begin.load(Ordering::Relaxed) {
            return statement;
        }
        let run = async move {
            if !self.begin.swap(false, Ordering::Relaxed) {
                return statement.await;
            }
            let mut inner = &self.inner;
            // Polled in this order, and sent at once: `BEGIN` needs no preparation.
            let (begun, outcome) = join(inner.batch_execute("BEGIN"), statement).await;
            begun?;
            outcome
        };
        run.boxed()
    }
}

/// A query with its comment.
struct Commented<Q> {
    query: Q,
    comment: Option<String>,
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Commented<Q> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.query.walk_ast(out.reborrow())?;
        if let Some(comment) = &self.comment {
            out.push_sql(comment);
        }
        Ok(())
    }

    fn is_safe_to_cache_prepared(&self, backend: &Pg) -> QueryResult<bool> {
        // No other statement has this comment.
        Ok(self.comment.is_none() && self.query.is_safe_to_cache_prepared(backend)?)
    }
}

impl<Q: QueryId> QueryId for Commented<Q> {
    type QueryId = Q::QueryId;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}

impl<Q: Query> Query for Commented<Q> {
    type SqlType = Q::SqlType;
}

impl SimpleAsyncConnection for Connection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.inner.batch_execute(query).await
    }
}

impl SimpleAsyncConnection for &Connection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        (&mut &self.inner).batch_execute(query).await
    }
}

impl AsyncConnectionCore for Connection {
    type LoadFuture<'conn, 'query> = <AsyncPgConnection as AsyncConnectionCore>::LoadFuture<'conn, 'query>;
    type ExecuteFuture<'conn, 'query> = <AsyncPgConnection as AsyncConnectionCore>::ExecuteFuture<'conn, 'query>;
    type Stream<'conn, 'query> = <AsyncPgConnection as AsyncConnectionCore>::Stream<'conn, 'query>;
    type Row<'conn, 'query> = <AsyncPgConnection as AsyncConnectionCore>::Row<'conn, 'query>;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        let query = self.commented(source.as_query());
        self.begun((&mut &self.inner).load(query))
    }

    fn execute_returning_count<'conn, 'query, T>(&'conn mut self, source: T) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let query = self.commented(source);
        self.begun((&mut &self.inner).execute_returning_count(query))
    }
}

// For statements that are sent one after the other before the first answer has come.
impl<'a> AsyncConnectionCore for &'a Connection {
    type LoadFuture<'conn, 'query> = <&'a AsyncPgConnection as AsyncConnectionCore>::LoadFuture<'conn, 'query>;
    type ExecuteFuture<'conn, 'query> = <&'a AsyncPgConnection as AsyncConnectionCore>::ExecuteFuture<'conn, 'query>;
    type Stream<'conn, 'query> = <&'a AsyncPgConnection as AsyncConnectionCore>::Stream<'conn, 'query>;
    type Row<'conn, 'query> = <&'a AsyncPgConnection as AsyncConnectionCore>::Row<'conn, 'query>;
    type Backend = Pg;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Pg> + QueryId + 'query,
    {
        let query = self.commented(source.as_query());
        self.begun((&mut &self.inner).load(query))
    }

    fn execute_returning_count<'conn, 'query, T>(&'conn mut self, source: T) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let query = self.commented(source);
        self.begun((&mut &self.inner).execute_returning_count(query))
    }
}

impl AsyncConnection for Connection {
    type TransactionManager = AnsiTransactionManager;

    async fn establish(database_url: &str) -> ConnectionResult<Self> {
        let inner = AsyncPgConnection::establish(database_url).await?;
        Ok(Self::new(inner, SqlState::default(), Arc::default(), false))
    }

    fn transaction_state(&mut self) -> &mut AnsiTransactionManager {
        self.inner.transaction_state()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        self.inner.instrumentation()
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.inner.set_instrumentation(instrumentation);
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        self.inner.set_prepared_statement_cache_size(size);
    }
}

impl PoolableConnection for Connection {
    fn is_broken(&mut self) -> bool {
        self.inner.is_broken()
    }
}
