//! The reasons why reads do not use Redis.

use std::fmt;

/// The reason why reads do not use Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum RedisFault {
    /// Redis is unreachable or exceeds the time limit.
    Unreachable,
    /// Redis requires a password and the URL has none (`NOAUTH`).
    PasswordMissing,
    /// Redis rejected the user or the password (`WRONGPASS`).
    WrongPassword,
    /// The user lacks the permission for a command or a key of the cache (`NOPERM`).
    PermissionMissing,
    /// The server is a replica (`READONLY`).
    ReadOnly,
    /// The memory is full and the policy evicts nothing (`OOM`).
    Full,
    /// The server rejects writes because it cannot save its data (`MISCONF`).
    DiskFailure,
    /// The server has fewer replicas than `min-replicas-to-write` (`NOREPLICAS`).
    TooFewReplicas,
    /// The URL names a database that the server does not have.
    WrongDatabase,
    /// A key of the cache holds data of another program (`WRONGTYPE`).
    ForeignKey,
    /// The server loads its data or waits for its primary (`LOADING`, `MASTERDOWN`).
    Starting,
}

impl RedisFault {
    /// Derives the fault from an error text, by the error codes of Redis.
    pub(crate) fn of(error: &str) -> Self {
        const CODES: [(&str, RedisFault); 13] = [
            ("NOAUTH", RedisFault::PasswordMissing),
            ("WRONGPASS", RedisFault::WrongPassword),
            // The client reports a rejected AUTH so.
            ("AuthenticationFailed", RedisFault::WrongPassword),
            ("NOPERM", RedisFault::PermissionMissing),
            // The response to a script whose user lacks a command.
            ("can't run this command or subcommand", RedisFault::PermissionMissing),
            ("NOREPLICAS", RedisFault::TooFewReplicas),
            ("DB index is out of range", RedisFault::WrongDatabase),
            ("WRONGTYPE", RedisFault::ForeignKey),
            ("READONLY", RedisFault::ReadOnly),
            ("OOM", RedisFault::Full),
            ("MISCONF", RedisFault::DiskFailure),
            ("LOADING", RedisFault::Starting),
            ("MASTERDOWN", RedisFault::Starting),
        ];
        CODES.iter().find(|(code, _)| error.contains(code)).map_or(Self::Unreachable, |(_, fault)| *fault)
    }
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "redis is unreachable or exceeds the time limit",
            Self::PasswordMissing => "redis requires a password (NOAUTH): add it to the URL",
            Self::WrongPassword => "redis rejected the user or the password (WRONGPASS)",
            Self::PermissionMissing => "the redis user lacks a permission (NOPERM): see ACL SETUSER",
            Self::ReadOnly => "redis is a replica (READONLY): use the URL of the primary or of its Sentinels",
            Self::Full => "redis is out of memory (OOM): set maxmemory-policy or raise maxmemory",
            Self::DiskFailure => "redis cannot save its data and rejects writes (MISCONF)",
            Self::TooFewReplicas => {
                "redis has too few replicas and rejects writes (NOREPLICAS): see min-replicas-to-write"
            }
            Self::WrongDatabase => "redis has no database of this number: correct the URL",
            Self::ForeignKey => "a key of the cache holds data of another program (WRONGTYPE): set another prefix",
            Self::Starting => "redis loads its data or waits for its primary",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_determine_the_fault() {
        for (text, fault) in [
            ("NOAUTH: Authentication required.", RedisFault::PasswordMissing),
            ("Password authentication failed - AuthenticationFailed", RedisFault::WrongPassword),
            ("An error was signalled by the server - OOM: command not allowed", RedisFault::Full),
            (
                "ERR The user executing the script can't run this command or subcommand script: 8f",
                RedisFault::PermissionMissing,
            ),
            ("NOREPLICAS Not enough good replicas to write.", RedisFault::TooFewReplicas),
            ("ERR DB index is out of range", RedisFault::WrongDatabase),
            ("no answer within 50ms", RedisFault::Unreachable),
        ] {
            assert_eq!(RedisFault::of(text), fault);
        }
    }
}
