//! What can go wrong between a caller and its rows.

use diesel::result::{DatabaseErrorKind, Error as Diesel};

/// The result of a store call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a store call failed. A row that is not there is no error: such calls return `Option`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A unique constraint forbids the row; the text names the constraint or its columns.
    #[error("a unique constraint forbids the row: {0}")]
    Conflict(String),
    /// No connection came free within the acquire time-out.
    #[error("no database connection came free in time")]
    Overloaded,
    /// A statement or a whole call passed its deadline; the server's work was cancelled.
    #[error("the database did not answer in time")]
    Timeout,
    /// The database could not be reached, or the connection broke during the call.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The address of the database cannot be used.
    #[error("invalid database URL: {0}")]
    InvalidUrl(String),
    /// A migration failed; nothing after it was applied.
    #[error("migration failed: {0}")]
    Migration(String),
    /// Anything else the database reported: a defect of a query or of the schema.
    #[error("query failed: {0}")]
    Query(#[source] Diesel),
}

impl From<Diesel> for Error {
    fn from(error: Diesel) -> Self {
        let Diesel::DatabaseError(kind, info) = &error else {
            return match error {
                Diesel::BrokenTransactionManager => {
                    Self::Unavailable("the connection broke inside a transaction".to_owned())
                }
                other => Self::Query(other),
            };
        };
        match kind {
            DatabaseErrorKind::UniqueViolation => {
                Self::Conflict(info.constraint_name().unwrap_or(info.message()).to_owned())
            }
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
                Self::Unavailable(info.message().to_owned())
            }
            // Neither PostgreSQL's SQLSTATEs 57014 and 57P01 to 57P03 nor SQLite's SQLITE_BUSY have a kind of their own.
            DatabaseErrorKind::Unknown if info.message().contains("statement timeout") => Self::Timeout,
            DatabaseErrorKind::Unknown if info.message().contains("database is locked") => Self::Overloaded,
            DatabaseErrorKind::Unknown if is_lost_connection(info.message()) => {
                Self::Unavailable(info.message().to_owned())
            }
            _ => Self::Query(error),
        }
    }
}

/// Whether a message says that the server ended the connection, and not the statement alone.
fn is_lost_connection(message: &str) -> bool {
    ["connection closed", "terminating connection", "the database system is"]
        .iter()
        .any(|words| message.contains(words))
}
