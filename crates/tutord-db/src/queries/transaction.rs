//! Ends of transactions.

use diesel_async::{AsyncConnection, TransactionManager};
use tutord_core::{Error, Refusal, Result};

use super::Conn;

/// Commits if the outcome is `Ok`, otherwise rolls back.
pub(super) async fn end_transaction<T>(conn: &mut Conn, outcome: Result<T>) -> Result<T> {
    type Manager = <Conn as AsyncConnection>::TransactionManager;
    match outcome {
        Ok(value) => match Manager::commit_transaction(conn).await.map_err(Error::from) {
            Ok(()) => Ok(value),
            // The server may have committed before the connection broke, so a retry could apply the transaction twice.
            Err(error @ (Error::Refused(Refusal::ConnectionLost, _) | Error::Query(_))) => Err(unknown_outcome(&error)),
            Err(error) => Err(error),
        },
        Err(error) => {
            // The first error says more than a rollback that fails too; the pool drops such a connection.
            if let Err(rollback) = Manager::rollback_transaction(conn).await {
                tracing::debug!(%rollback, "could not roll back a transaction");
            }
            Err(error)
        }
    }
}

/// Returns the error for a transaction that may have been committed or not.
pub(super) fn unknown_outcome(error: &Error) -> Error {
    Error::Unavailable(format!("the outcome of a COMMIT is unknown: {error}"))
}
