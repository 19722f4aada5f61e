//! The SQLite adapter: one write connection and several read connections, in WAL mode.
//!
//! SQLite has one writer at a time regardless of the number of connections, so writers queue here for one connection
//! instead of for a file lock. A commit returns when it is on disk (`synchronous=FULL`).
//!
//! Requires tokio's multi-threaded runtime: statements run in place on a worker thread (see `InPlace`).

mod adapter;
mod administration;
mod explain;
mod follow;
mod lock;
mod outbox;
mod pool;
mod seed;

pub use adapter::Sqlite;

use adapter::Sqlite as Adapter;
use pool::{Conn, Each};

/// Runs statements one after the other; SQLite has no round trips to save.
macro_rules! pipelined {
    ($conn:ident, $($query:ident.$method:ident $(::<$type:ty>)?),+ $(,)?) => {
        ($($query.$method $(::<$type>)? (&mut *$conn).await?),+)
    };
}

/// Runs the last statements of a transaction, which is committed afterwards.
macro_rules! committed {
    ($($batch:tt)+) => {
        pipelined!($($batch)+)
    };
}

/// Returns the id of the row that was inserted into a table last: a write transaction is always the only one.
macro_rules! last_id {
    ($table:literal) => {
        diesel::dsl::sql::<diesel::sql_types::BigInt>(concat!("(SELECT max(id) FROM ", $table, ")"))
    };
}

/// Locks nothing: a write transaction is always the only one.
macro_rules! for_update {
    ($query:expr) => {
        $query
    };
}

/// Locks nothing: see `for_update`.
macro_rules! exclusively {
    ($conn:ident, $tables:literal) => {};
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
