//! Reading of the identity of the database.

use tokio_postgres::SimpleQueryMessage;
use tutord_core::operations::DatabaseIdentity;

/// The parts of the identity, which any role may read: the cluster, the database, the table that everything refers to
/// (a restore in place recreates it, and each schema has its own), and the timeline (a promotion or a point-in-time
/// recovery begins a new one). A server in recovery has no timeline that ordinary roles may read. Unknown parts are
/// NULL.
pub(super) const READ: &str = "SELECT system_identifier, \
    (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()), to_regclass('users')::oid, \
    CASE WHEN NOT pg_is_in_recovery() THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END \
    FROM pg_control_system()";

/// Returns the identity in the result of [`READ`].
pub(super) fn parse(answer: &[SimpleQueryMessage]) -> Option<DatabaseIdentity> {
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })?;
    Some(DatabaseIdentity::of(&[row.get(0)?, row.get(1)?, row.get(2)?], row.get(3)?))
}

/// Returns `true` if the server can't or may not return the identity.
pub(super) fn is_refused(error: &tokio_postgres::Error) -> bool {
    // Class 42: syntax errors and access rule violations.
    error.code().is_some_and(|state| state.code().starts_with("42"))
}
