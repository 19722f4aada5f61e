//! Prepared statements that connections cache although diesel would not.
//!
//! diesel prepares each `UPDATE`, each upsert and each [`sql_query`](diesel::sql_query) anew, because it can't know how
//! many distinct texts there are. On PostgreSQL that costs another round trip, and the server parses and plans the
//! statement again.

use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel_async::AsyncConnectionCore;
use diesel_async::methods::ExecuteDsl;

/// A statement with one of few texts, however often it is issued: its text must not depend on a list's length or on
/// which of many fields are set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CachedStatement<Q>(pub(crate) Q);

impl<Q: QueryFragment<DB>, DB: Backend> QueryFragment<DB> for CachedStatement<Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _backend: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q: QueryId> QueryId for CachedStatement<Q> {
    type QueryId = Q::QueryId;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}

impl<Q: Query> Query for CachedStatement<Q> {
    type SqlType = Q::SqlType;
}

/// A statement of a batch that is left out if it is `None`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Optional<Q>(pub(crate) Option<Q>);

impl<Q> Optional<Q> {
    /// Executes the statement. Returns the number of rows, 0 without a statement.
    pub(crate) async fn execute<Conn>(self, conn: &mut Conn) -> QueryResult<usize>
    where
        Conn: AsyncConnectionCore,
        Q: ExecuteDsl<Conn>,
    {
        match self.0 {
            Some(statement) => ExecuteDsl::execute(statement, conn).await,
            None => Ok(0),
        }
    }
}
