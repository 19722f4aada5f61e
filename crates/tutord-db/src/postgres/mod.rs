//! The PostgreSQL adapter: one pool to the primary.
//!
//! Every call runs in a wrapper that limits the wait for a connection and the call itself, and cancels the server's
//! work if the caller goes away: see the `lease` module.

mod adapter;
mod administration;
mod batch;
mod connect;
mod explain;
mod identity;
mod identity_poll;
mod lease;
mod monitor;
mod outbox;
mod overflow;
mod replicas;
mod seed;
mod server_statements;
mod sqlcommenter;
mod sqlstate;
mod traffic;

pub use adapter::Postgres;
pub use connect::{Connector, connect};
pub use sqlcommenter::Connection;

use adapter::Postgres as Adapter;
use batch::Each;
use sqlcommenter::Connection as Conn;

/// Sends statements in one round trip: all are sent before the first result is awaited.
macro_rules! pipelined {
    ($conn:ident, $($query:ident.$method:ident $(::<$type:ty>)?),+ $(,)?) => {{
        let shared: &super::Conn = $conn;
        futures_util::try_join!($(async {
            let mut conn = shared;
            $query.$method $(::<$type>)? (&mut conn).await
        }),+)?
    }};
}

/// Runs the last statements of a transaction and commits it, in one round trip if all of them are prepared. Results are rows
/// or counts: a missing row is no error, because `COMMIT` is sent before the results arrive.
macro_rules! committed {
    ($conn:ident, $($query:ident.$method:ident $(::<$type:ty>)?),+ $(,)?) => {{
        let batch = super::batch::Batch::new($conn);
        let end = batch
            .commit_with(async {
                let ($($query,)+) = futures_util::join!($(async {
                    let mut conn = batch.connection();
                    batch.check($query.$method $(::<$type>)? (&mut conn).await)
                }),+);
                let results = ($($query?),+);
                Ok(results)
            })
            .await;
        $conn.settle(end)?
    }};
}

/// Returns the id of the row that this transaction has inserted into a table last.
macro_rules! last_id {
    ($table:literal) => {
        diesel::dsl::sql::<diesel::sql_types::BigInt>(concat!("currval(pg_get_serial_sequence('", $table, "', 'id'))"))
    };
}

/// Locks the rows of a query until the transaction ends. Rows that refer to them can still be inserted.
macro_rules! for_update {
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

#[path = "../queries/catalogue.rs"]
mod catalogue;
#[path = "../queries/completions.rs"]
mod completions;
#[path = "../queries/conversation_rows.rs"]
mod conversation_rows;
#[path = "../queries/conversations.rs"]
mod conversations;
#[path = "../queries/email_tokens.rs"]
mod email_tokens;
#[path = "../queries/exercises.rs"]
mod exercises;
#[path = "../queries/leaderboards.rs"]
mod leaderboards;
#[path = "../queries/locks.rs"]
mod locks;
#[path = "../queries/mails.rs"]
mod mails;
#[path = "../queries/messages.rs"]
mod messages;
#[path = "../queries/metadata.rs"]
mod metadata;
#[path = "../queries/progress.rs"]
mod progress;
#[path = "../queries/purge.rs"]
mod purge;
#[path = "../queries/requests.rs"]
mod requests;
#[path = "../queries/rows.rs"]
mod rows;
#[path = "../queries/sessions.rs"]
mod sessions;
#[path = "../queries/transaction.rs"]
mod transaction;
#[path = "../queries/user_exercise_rows.rs"]
mod user_exercise_rows;
#[path = "../queries/users.rs"]
mod users;
