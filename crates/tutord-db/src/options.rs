//! The options of a database.

use std::time::Duration;

use querywatch::Watch;

/// The options of a database.
#[derive(Debug, Clone)]
pub struct DatabaseOptions {
    /// The number of connections that stay open (≥ 1); on SQLite, of read connections.
    pub pool_size: usize,
    /// The maximum number of additional connections under load. PostgreSQL only.
    pub max_overflow: usize,
    /// The maximum wait for a connection.
    pub acquire_timeout: Duration,
    /// The timeout of a statement on PostgreSQL; on SQLite, the maximum wait for another process's lock.
    pub statement_timeout: Duration,
    /// The id of this process in the [outbox](tutord_core::operations::Outbox), if the process invalidates and acknowledges its
    /// own writes. PostgreSQL only.
    pub node: Option<u64>,
    /// Set if this process serves. On SQLite it is then the only serving process of the file, and
    /// [follows](tutord_core::operations::Outbox) writes by others.
    pub serves: bool,
    /// Create the missing directory of a SQLite file.
    pub creates_directory: bool,
    /// The watch, which observes every statement.
    pub watch: Watch,
    /// Append [`querywatch::sql_comment`] to statements. This disables the reuse of prepared statements, which costs one
    /// more round trip for each statement. PostgreSQL only.
    pub comments: bool,
}

impl Default for DatabaseOptions {
    /// Returns the defaults: 10 connections and 10 more under load, a wait of 3 s for a connection, 5 s for a
    /// statement, a new watch, no comments; the process does not serve, and creates no directory.
    fn default() -> Self {
        Self {
            pool_size: 10,
            max_overflow: 10,
            acquire_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(5),
            node: None,
            serves: false,
            creates_directory: false,
            watch: Watch::builder().build(),
            comments: false,
        }
    }
}
