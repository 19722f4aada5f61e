//! Statements with a comment that names their request and route.

use diesel::connection::{CacheSize, Instrumentation};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AsQuery, AstPass, Query, QueryFragment, QueryId};
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::{
    AnsiTransactionManager, AsyncConnection, AsyncConnectionCore, AsyncPgConnection, SimpleAsyncConnection,
};

use super::sqlstate::SqlState;

/// A connection that appends [`querywatch::sql_comment`] to each statement, if enabled.
///
/// Without comments it delegates to the inner connection: texts stay unchanged, and statements are prepared once.
pub struct Connection {
    inner: AsyncPgConnection,
    state: SqlState,
    comments: bool,
    /// The term of the database's identity when the connection was opened.
    pub(super) term: u64,
}

impl Connection {
    pub(super) const fn new(inner: AsyncPgConnection, state: SqlState, comments: bool) -> Self {
        Self { inner, state, comments, term: 0 }
    }

    /// The latest SQLSTATE of the server.
    pub(super) const fn state(&self) -> &SqlState {
        &self.state
    }

    pub(super) const fn inner(&self) -> &AsyncPgConnection {
        &self.inner
    }

    fn commented<Q>(&self, query: Q) -> Commented<Q> {
        Commented { query, comment: if self.comments { querywatch::sql_comment() } else { None } }
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
        self.inner.load(query)
    }

    fn execute_returning_count<'conn, 'query, T>(&'conn mut self, source: T) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let query = self.commented(source);
        self.inner.execute_returning_count(query)
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
        (&mut &self.inner).load(query)
    }

    fn execute_returning_count<'conn, 'query, T>(&'conn mut self, source: T) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Pg> + QueryId + 'query,
    {
        let query = self.commented(source);
        (&mut &self.inner).execute_returning_count(query)
    }
}

impl AsyncConnection for Connection {
    type TransactionManager = AnsiTransactionManager;

    async fn establish(database_url: &str) -> ConnectionResult<Self> {
        Ok(Self::new(AsyncPgConnection::establish(database_url).await?, SqlState::default(), false))
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
