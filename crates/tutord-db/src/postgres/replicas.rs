//! The streaming replicas that are connected to the server, as `pg_stat_replication` shows them.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double, Nullable, Text};
use diesel_async::RunQueryDsl;
use tutord_core::Result;
use tutord_core::operations::{MAX_REPLICAS, Replica, ReplicaProgress};

use super::sqlcommenter::Connection;

/// Excludes subscribers of logical replication, which copy tables and not the server. On a server that is itself a
/// replica, the lag refers to the position up to which it has received. The order is stable while the same replicas are
/// connected.
const READ: &str = "SELECT application_name AS name, host(client_addr) AS address, state, sync_state, \
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_receive_lsn() ELSE pg_current_wal_lsn() END, \
    replay_lsn)::bigint AS lag_bytes, EXTRACT(EPOCH FROM replay_lag)::double precision AS lag_seconds \
    FROM pg_stat_replication AS replica WHERE NOT EXISTS (SELECT FROM pg_replication_slots \
    WHERE active_pid = replica.pid AND slot_type = 'logical') \
    ORDER BY name, client_addr, backend_start, pid LIMIT $1";

#[derive(QueryableByName)]
struct ReplicaRow {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Nullable<Text>)]
    address: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    state: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    sync_state: Option<String>,
    #[diesel(sql_type = Nullable<BigInt>)]
    lag_bytes: Option<i64>,
    #[diesel(sql_type = Nullable<Double>)]
    lag_seconds: Option<f64>,
}

pub(super) async fn read(conn: &mut Connection) -> Result<Vec<Replica>> {
    let rows = diesel::sql_query(READ).bind::<BigInt, _>(MAX_REPLICAS).load::<ReplicaRow>(conn).await?;
    Ok(rows.into_iter().map(Replica::from).collect())
}

impl From<ReplicaRow> for Replica {
    fn from(row: ReplicaRow) -> Self {
        // The server measures a lag only while there is something left to replay.
        let lag_bytes = row.lag_bytes.map(|bytes| u64::try_from(bytes).unwrap_or_default());
        let lag = match lag_bytes {
            Some(0) => Some(Duration::ZERO),
            _ => row.lag_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
        };
        // Who may not see them is shown neither: all others have both.
        let seen = row.state.zip(row.sync_state);
        let progress = seen.map(|(state, sync_state)| ReplicaProgress { state, sync_state, lag_bytes, lag });
        Self { name: row.name, address: row.address, progress }
    }
}
