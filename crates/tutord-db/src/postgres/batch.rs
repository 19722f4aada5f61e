//! Transactions whose `BEGIN` travels with their first statements, and `COMMIT` with their last.
//!
//! A statement that is not prepared on the connection is sent only after the server has prepared it, and `COMMIT` must not
//! overtake it: the server would end the transaction and run the statement on its own. `COMMIT` is therefore sent with the
//! statements only if all of them have been sent, and otherwise after their results.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use diesel::QueryResult;
use diesel::connection::{TransactionDepthChange, TransactionManagerStatus};
use diesel::result::{DatabaseErrorKind, Error as Diesel};
use diesel_async::methods::ExecuteDsl;
use diesel_async::{AsyncConnection, SimpleAsyncConnection, TransactionManager};
use futures_util::future::{join, join_all};
use tutord_core::{Error, Refusal, Result};

use super::sqlcommenter::Connection;
use super::transaction::{end_transaction, unknown_outcome};

type Manager = <Connection as AsyncConnection>::TransactionManager;

/// The state of the transaction after its last statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Committed or rolled back.
    Closed,
    /// `COMMIT` was not sent.
    Open,
    /// The connection broke.
    Unknown,
}

/// The last statements of a transaction.
pub(super) struct Batch<'a> {
    conn: &'a Connection,
    failed: AtomicBool,
}

impl<'a> Batch<'a> {
    pub(super) const fn new(conn: &'a Connection) -> Self {
        Self { conn, failed: AtomicBool::new(false) }
    }

    pub(super) const fn connection(&self) -> &'a Connection {
        self.conn
    }

    /// Notes the failure of a statement.
    pub(super) fn check<T>(&self, outcome: QueryResult<T>) -> QueryResult<T> {
        if outcome.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        outcome
    }

    /// Runs the statements and commits. `statements` must start all of them, in order, when it is first polled.
    pub(super) async fn commit_with<T>(&self, statements: impl Future<Output = QueryResult<T>>) -> (Result<T>, End) {
        // Without tokio's budget, only a statement that is being prepared lets others wait for diesel's cache.
        let mut statements = pin!(tokio::task::unconstrained(statements));
        let prepared = self.conn.traffic().prepared();
        let first = poll_fn(|context| Poll::Ready(statements.as_mut().poll(context))).await;
        let is_failed = self.failed.load(Ordering::Relaxed);
        let outcome = match first {
            Poll::Ready(outcome) => outcome,
            Poll::Pending if !is_failed && self.conn.traffic().prepared() == prepared => {
                let (outcome, committed) = join(statements, self.commit()).await;
                return conclude(outcome, committed);
            }
            Poll::Pending => statements.await,
        };
        match outcome {
            Ok(value) => conclude(Ok(value), self.commit().await),
            Err(error) => (Err(error.into()), End::Open),
        }
    }

    async fn commit(&self) -> QueryResult<()> {
        let mut conn = self.conn;
        conn.batch_execute("COMMIT").await
    }
}

/// Combines the outcome of statements with the outcome of the `COMMIT` that followed them.
fn conclude<T>(outcome: QueryResult<T>, committed: QueryResult<()>) -> (Result<T>, End) {
    match (outcome, committed) {
        (Ok(value), Ok(())) => (Ok(value), End::Closed),
        (Ok(_), Err(error)) => match Error::from(error) {
            error @ (Error::Refused(Refusal::ConnectionLost, _) | Error::Query(_)) => {
                (Err(unknown_outcome(&error)), End::Unknown)
            }
            error => (Err(error), End::Closed),
        },
        // After an error of a statement, the server rolls back at COMMIT.
        (Err(error), Ok(())) => (Err(error.into()), End::Closed),
        (Err(error), Err(_)) if is_of_server(&error) => (Err(error.into()), End::Unknown),
        (Err(error), Err(_)) => (Err(unknown_outcome(&error.into())), End::Unknown),
    }
}

/// Returns `true` if the server reported this error of a statement.
fn is_of_server(error: &Diesel) -> bool {
    match error {
        Diesel::DatabaseError(kind, _) => {
            !matches!(kind, DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection)
        }
        _ => false,
    }
}

/// Statements with one text, as a part of a batch.
pub(super) struct Each<Q>(pub(super) Vec<Q>);

impl<Q> Each<Q> {
    /// Executes the statements together. Returns the number of rows.
    pub(super) async fn execute<'a>(self, conn: &mut &'a Connection) -> QueryResult<usize>
    where
        Q: ExecuteDsl<&'a Connection>,
    {
        let shared = *conn;
        let statements = self.0.into_iter().map(async |statement| {
            let mut conn = shared;
            ExecuteDsl::execute(statement, &mut conn).await
        });
        join_all(statements).await.into_iter().sum()
    }
}

impl Connection {
    /// Begins a transaction. `BEGIN` is sent with the first statement.
    pub(super) fn begin(&mut self) -> QueryResult<()> {
        change_depth(self, TransactionDepthChange::IncreaseDepth)?;
        self.set_begin(true);
        Ok(())
    }

    /// Ends the transaction, unless its last statements ended it.
    pub(super) async fn end<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if self.set_begin(false) {
            // Nothing was sent.
            change_depth(self, TransactionDepthChange::DecreaseDepth)?;
            return outcome;
        }
        match Manager::transaction_manager_status_mut(self).transaction_depth() {
            Ok(Some(_)) => end_transaction(self, outcome).await,
            Ok(None) | Err(_) => outcome,
        }
    }

    /// Records the end of a batch in diesel's transaction manager.
    pub(super) fn settle<T>(&mut self, (outcome, end): (Result<T>, End)) -> Result<T> {
        match end {
            End::Closed => change_depth(self, TransactionDepthChange::DecreaseDepth)?,
            End::Open => {}
            End::Unknown => Manager::transaction_manager_status_mut(self).set_in_error(),
        }
        outcome
    }
}

fn change_depth(conn: &mut Connection, change: TransactionDepthChange) -> QueryResult<()> {
    match Manager::transaction_manager_status_mut(conn) {
        TransactionManagerStatus::Valid(status) => status.change_transaction_depth(change),
        TransactionManagerStatus::InError => Err(Diesel::BrokenTransactionManager),
    }
}
