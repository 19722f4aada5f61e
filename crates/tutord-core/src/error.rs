//! The errors of the store.

use std::fmt;
use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error as Diesel};

/// The result of a store call.
pub type Result<T> = std::result::Result<T, Error>;

/// The error of a store call. A missing row is not an error: such calls return `Option`. Callers that wait for one call
/// share its error, so it can be cloned.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A unique constraint rejected the row; the text names the constraint or its columns.
    #[error("a unique constraint rejects the row: {0}")]
    Conflict(String),
    /// The idempotency key was already used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// No connection was available within the acquire timeout.
    #[error("timed out waiting for a database connection")]
    Overloaded,
    /// A statement or a whole call exceeded its deadline; the server's work was cancelled.
    #[error("the database did not respond in time")]
    Timeout,
    /// The database could not be reached, or the connection broke during the call.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database refused a valid statement; the text is the database's message.
    #[error("{0}: {1}")]
    Refused(Refusal, String),
    /// The URL of the database is invalid.
    #[error("invalid database URL: {0}")]
    InvalidUrl(String),
    /// A migration failed; nothing after it was applied.
    #[error("migration failed: {0}")]
    Migration(String),
    /// A later version created the schema, and this version is incompatible with it.
    #[error("the database requires tutord {needed} or later, but this is {own}; upgrade tutord")]
    Incompatible {
        /// The oldest compatible version.
        needed: String,
        /// This version.
        own: &'static str,
    },
    /// Any other error of the database: a defect of a query or of the schema.
    #[error("query failed: {0}")]
    Query(#[source] Arc<Diesel>),
}

/// The reason why a database refuses a valid statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The database is a standby, or configured as read-only.
    ReadOnly,
    /// The disk, the quota or the size limit of the database is exhausted.
    DiskFull,
    /// The database is out of memory.
    OutOfMemory,
    /// The database accepts no more connections.
    TooManyConnections,
    /// The database is starting, recovering from a crash, or shutting down.
    Restarting,
    /// The connection broke during a statement.
    ConnectionLost,
    /// Another transaction conflicted: a serialization failure, a deadlock or a lock.
    Contention,
    /// The statement was prepared before the schema changed.
    StalePlan,
    /// A table or a column is missing, or has another type.
    SchemaMismatch,
    /// The database user lacks a privilege.
    PermissionDenied,
    /// The log-in was refused.
    AccessDenied,
}

impl Refusal {
    /// Returns the name in responses and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::DiskFull => "disk_full",
            Self::OutOfMemory => "out_of_memory",
            Self::TooManyConnections => "too_many_connections",
            Self::Restarting => "restarting",
            Self::ConnectionLost => "connection_lost",
            Self::Contention => "contention",
            Self::StalePlan => "stale_plan",
            Self::SchemaMismatch => "schema_mismatch",
            Self::PermissionDenied => "permission_denied",
            Self::AccessDenied => "access_denied",
        }
    }

    /// Returns the refusal for a [SQLSTATE](https://www.postgresql.org/docs/current/errcodes-appendix.html).
    pub fn from_sqlstate(code: &str) -> Option<Self> {
        Some(match code {
            "25006" => Self::ReadOnly,
            "53100" => Self::DiskFull,
            // A server that can't write its log ends itself; 58030 is its word for any other failure of the disk.
            "58030" => Self::DiskFull,
            "53200" => Self::OutOfMemory,
            "53300" => Self::TooManyConnections,
            "57P01" | "57P02" | "57P03" | "57P05" => Self::Restarting,
            "40001" | "40P01" | "55P03" => Self::Contention,
            // `feature_not_supported` is the code of "cached plan must not change result type"; no statement of ours
            // uses what a server lacks. The others: a statement that a pooler's server does not have, or has twice.
            "0A000" | "26000" | "42P05" => Self::StalePlan,
            // Missing tables, columns, functions and types; operators that do not fit a changed type.
            "42P01" | "42703" | "42883" | "42704" | "42804" | "3F000" | "3D000" => Self::SchemaMismatch,
            "42501" => Self::PermissionDenied,
            code if code.starts_with("08") => Self::ConnectionLost,
            code if code.starts_with("28") => Self::AccessDenied,
            _ => return None,
        })
    }

    /// Returns the refusal for an error message of SQLite, which is always in English.
    fn from_sqlite(message: &str) -> Option<Self> {
        const MESSAGES: [(&str, Refusal); 9] = [
            ("readonly database", Refusal::ReadOnly),
            ("database or disk is full", Refusal::DiskFull),
            ("disk I/O error", Refusal::DiskFull),
            ("out of memory", Refusal::OutOfMemory),
            ("no such table", Refusal::SchemaMismatch),
            ("no such column", Refusal::SchemaMismatch),
            ("has no column named", Refusal::SchemaMismatch),
            ("database schema has changed", Refusal::SchemaMismatch),
            ("unable to open database file", Refusal::AccessDenied),
        ];
        MESSAGES.iter().find(|(text, _)| message.contains(text)).map(|(_, refusal)| *refusal)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "the database is read-only",
            Self::DiskFull => "the database's disk is full",
            Self::OutOfMemory => "the database is out of memory",
            Self::TooManyConnections => "the database accepts no more connections",
            Self::Restarting => "the database is starting or shutting down",
            Self::ConnectionLost => "the connection to the database broke",
            Self::Contention => "another transaction conflicted",
            Self::StalePlan => "a prepared statement is outdated: the schema changed",
            Self::SchemaMismatch => "the database schema does not match this version of tutord",
            Self::PermissionDenied => "the database user lacks a privilege",
            Self::AccessDenied => "the database rejected the log-in",
        })
    }
}

impl Error {
    /// Returns the refusal, if the error is one.
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal, _) => Some(*refusal),
            _ => None,
        }
    }

    /// Returns the error, reclassified by the server's SQLSTATE.
    pub fn with_sqlstate(self, code: Option<&str>) -> Self {
        // `Unavailable` stays what it is: it may have been committed.
        let (Self::Query(_) | Self::Refused(..)) = &self else { return self };
        match code {
            // query_canceled: statement_timeout is the only cause while the caller waits for the result.
            Some("57014") => Self::Timeout,
            Some(code) => match Refusal::from_sqlstate(code) {
                Some(refusal) => Self::Refused(refusal, self.server_text()),
                None => self,
            },
            None => self,
        }
    }

    /// Returns the database's message.
    fn server_text(self) -> String {
        match self {
            Self::Query(error) => error.to_string(),
            Self::Refused(_, text) => text,
            other => other.to_string(),
        }
    }
}

impl From<Diesel> for Error {
    fn from(error: Diesel) -> Self {
        let Diesel::DatabaseError(kind, info) = &error else {
            return match error {
                Diesel::BrokenTransactionManager => {
                    Self::Refused(Refusal::ConnectionLost, "the connection broke inside a transaction".to_owned())
                }
                other => Self::Query(Arc::new(other)),
            };
        };
        match kind {
            DatabaseErrorKind::UniqueViolation => {
                Self::Conflict(info.constraint_name().unwrap_or(info.message()).to_owned())
            }
            // PostgreSQL only.
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
                Self::Refused(Refusal::ConnectionLost, info.message().to_owned())
            }
            DatabaseErrorKind::ReadOnlyTransaction => Self::Refused(Refusal::ReadOnly, info.message().to_owned()),
            DatabaseErrorKind::SerializationFailure => Self::Refused(Refusal::Contention, info.message().to_owned()),
            // SQLite's codes have no kind. PostgreSQL's get theirs from the SQLSTATE later.
            DatabaseErrorKind::Unknown if info.message().contains("database is locked") => Self::Overloaded,
            DatabaseErrorKind::Unknown => match Refusal::from_sqlite(info.message()) {
                Some(refusal) => Self::Refused(refusal, info.message().to_owned()),
                None => Self::Query(Arc::new(error)),
            },
            _ => Self::Query(Arc::new(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_decides_whatever_the_language_of_the_text() {
        let failed = || Error::Query(Arc::new(Diesel::NotFound));
        for (code, expected) in [
            ("25006", Refusal::ReadOnly),
            ("53100", Refusal::DiskFull),
            ("40P01", Refusal::Contention),
            ("0A000", Refusal::StalePlan),
            ("57P01", Refusal::Restarting),
            ("08006", Refusal::ConnectionLost),
            ("28P01", Refusal::AccessDenied),
        ] {
            assert_eq!(failed().with_sqlstate(Some(code)).refusal(), Some(expected), "{code}");
        }
        assert!(matches!(failed().with_sqlstate(Some("57014")), Error::Timeout));
        for code in [Some("22012"), None] {
            assert!(matches!(failed().with_sqlstate(code), Error::Query(_)), "a defect stays one: {code:?}");
        }
        let taken = Error::Conflict("users_email_key".to_owned()).with_sqlstate(Some("53100"));
        assert!(matches!(taken, Error::Conflict(_)), "it is an answer and no failure");
    }
}
