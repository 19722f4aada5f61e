//! Why Redis is not used, by kind.

use std::fmt;

use serde::Serialize;

/// Why Redis is not used at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisFault {
    /// It can't be reached, or does not answer in time.
    Unreachable,
    /// It needs a password, and none was given (`NOAUTH`).
    PasswordMissing,
    /// The user or the password is wrong (`WRONGPASS`).
    WrongPassword,
    /// The user may not issue a command or use a key that the cache needs (`NOPERM`).
    PermissionMissing,
    /// It is a replica (`READONLY`).
    ReadOnly,
    /// Its memory is full, and its policy evicts nothing (`OOM`).
    Full,
    /// It refuses writes because it can't store its data (`MISCONF`).
    DiskFailure,
    /// Fewer replicas follow it than it was told to write with (`NOREPLICAS`).
    TooFewReplicas,
    /// The address names a database that it does not have.
    WrongDatabase,
    /// A key of the cache holds what the cache did not write (`WRONGTYPE`).
    ForeignKey,
    /// It is reading its data, or waits for its primary (`LOADING`, `MASTERDOWN`).
    Starting,
}

impl RedisFault {
    /// The kind of a failure. Redis's error codes are in capitals and in no language.
    pub(crate) fn of(failure: &str) -> Self {
        const CODES: [(&str, RedisFault); 13] = [
            ("NOAUTH", RedisFault::PasswordMissing),
            ("WRONGPASS", RedisFault::WrongPassword),
            // What the client makes of a refused AUTH.
            ("AuthenticationFailed", RedisFault::WrongPassword),
            ("NOPERM", RedisFault::PermissionMissing),
            // What a script answers whose user lacks a command.
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
        CODES.iter().find(|(code, _)| failure.contains(code)).map_or(Self::Unreachable, |(_, fault)| *fault)
    }
}

impl fmt::Display for RedisFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "Redis can't be reached or does not answer in time",
            Self::PasswordMissing => "Redis needs a password (NOAUTH): put it into the address",
            Self::WrongPassword => "Redis refused the user or the password (WRONGPASS)",
            Self::PermissionMissing => "the Redis user lacks a command or a key (NOPERM): see ACL SETUSER",
            Self::ReadOnly => "Redis is a replica and takes no writes (READONLY): name the primary, or its Sentinels",
            Self::Full => "Redis has no memory left and evicts nothing (OOM): set maxmemory-policy or raise maxmemory",
            Self::DiskFailure => "Redis can't store its data and refuses writes (MISCONF)",
            Self::TooFewReplicas => "Redis has too few replicas to write (NOREPLICAS): see min-replicas-to-write",
            Self::WrongDatabase => "Redis has no database of this number: correct the address",
            Self::ForeignKey => "a key of the cache holds what another program wrote (WRONGTYPE): set another prefix",
            Self::Starting => "Redis is loading its data or waits for its primary",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide() {
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
