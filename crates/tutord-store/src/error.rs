//! What can go wrong between a caller and its rows.

use std::fmt;

use diesel::result::{DatabaseErrorKind, Error as Diesel};

/// The result of a store call.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a store call failed. A row that is not there is no error: such calls return `Option`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A unique constraint forbids the row; the text names the constraint or its columns.
    #[error("a unique constraint forbids the row: {0}")]
    Conflict(String),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// No connection came free within the acquire time-out.
    #[error("no database connection came free in time")]
    Overloaded,
    /// A statement or a whole call passed its deadline; the server's work was cancelled.
    #[error("the database did not answer in time")]
    Timeout,
    /// The database could not be reached, or the connection broke during the call.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// The database refuses a statement that is in order; the text is its own.
    #[error("{0}: {1}")]
    Refused(Refusal, String),
    /// The address of the database cannot be used.
    #[error("invalid database URL: {0}")]
    InvalidUrl(String),
    /// A migration failed; nothing after it was applied.
    #[error("migration failed: {0}")]
    Migration(String),
    /// The schema was made by a later version, which this one can't work with.
    #[error("the database needs tutord {needed} or later, and this is {own}: upgrade tutord")]
    Incompatible {
        /// The oldest version that may use the schema.
        needed: String,
        /// This version.
        own: &'static str,
    },
    /// Anything else the database reported: a defect of a query or of the schema.
    #[error("query failed: {0}")]
    Query(#[source] Diesel),
}

/// Why a database refuses what it would do at another time, or for another user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is a standby, or it was set to take no writes.
    ReadOnly,
    /// Its disk, its quota or a bound of its size is full.
    DiskFull,
    /// It has no memory left.
    OutOfMemory,
    /// It takes no more connections.
    TooManyConnections,
    /// It is starting, recovering from a crash, or shutting down.
    Restarting,
    /// The connection broke while a statement was on its way.
    ConnectionLost,
    /// Another transaction was in the way: a serialization failure, a deadlock or a lock.
    Contention,
    /// A statement that was prepared before the schema changed.
    StalePlan,
    /// A table or a column is missing, or has another type.
    SchemaMismatch,
    /// The database user lacks a privilege.
    PermissionDenied,
    /// The log-in was refused.
    AccessDenied,
}

impl Refusal {
    /// Its name in answers and metrics.
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

    /// The refusal that a [SQLSTATE](https://www.postgresql.org/docs/current/errcodes-appendix.html) stands for.
    pub(crate) fn from_sqlstate(code: &str) -> Option<Self> {
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

    /// The refusal that an error message of SQLite stands for, which is always English.
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
            Self::DiskFull => "the database has no room left on its disk",
            Self::OutOfMemory => "the database has no memory left",
            Self::TooManyConnections => "the database takes no more connections",
            Self::Restarting => "the database is starting or shutting down",
            Self::ConnectionLost => "the connection to the database broke",
            Self::Contention => "another transaction was in the way",
            Self::StalePlan => "the schema changed under a prepared statement",
            Self::SchemaMismatch => "the schema of the database does not fit this version of tutord",
            Self::PermissionDenied => "the database user lacks a privilege",
            Self::AccessDenied => "the database refused the log-in",
        })
    }
}

impl Error {
    /// The refusal, where it is one.
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal, _) => Some(*refusal),
            _ => None,
        }
    }

    /// The same error with the kind that the server's SQLSTATE gives it.
    pub(crate) fn with_sqlstate(self, code: Option<&str>) -> Self {
        // `Unavailable` stays what it is: it may have been committed.
        let (Self::Query(_) | Self::Refused(..)) = &self else { return self };
        match code {
            // query_canceled: by statement_timeout, as nobody else cancels a statement whose answer is awaited.
            Some("57014") => Self::Timeout,
            Some(code) => match Refusal::from_sqlstate(code) {
                Some(refusal) => Self::Refused(refusal, self.server_text()),
                None => self,
            },
            None => self,
        }
    }

    /// What the database said.
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
                other => Self::Query(other),
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
                None => Self::Query(error),
            },
            _ => Self::Query(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_decides_whatever_the_language_of_the_text() {
        let failed = || Error::Query(Diesel::NotFound);
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
