//! The replicas that the primary reports.

use std::time::Duration;

use testbed::Postgres;
use tutord_core::Database;
use tutord_core::operations::{Replica, ReplicaProgress};

use crate::fixture::{self, open};

/// Polls the replica until it is as expected. The runner ends a test that waits forever.
async fn until(store: &dyn Database, expected: impl Fn(&ReplicaProgress) -> bool) -> ReplicaProgress {
    loop {
        let [replica] = store.replicas().await.unwrap().try_into().unwrap();
        let progress = replica.progress.unwrap();
        if expected(&progress) {
            return progress;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_has_no_replicas() {
    assert_eq!(fixture::sqlite().await.replicas().await.unwrap(), Vec::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_seen_falling_behind_and_catching_up() {
    let primary = Postgres::start(false).await.unwrap();
    let store = open(&primary.url("postgres")).await;
    let (none, issued) = fixture::count(store.replicas()).await;
    assert_eq!((none.unwrap(), issued), (Vec::new(), 1));

    let replica = primary.replica("near").await.unwrap();
    let [seen] = store.replicas().await.unwrap().try_into().unwrap();
    assert_eq!((seen.name.as_str(), seen.address.as_deref()), ("near", Some("127.0.0.1")));
    let caught_up = |progress: &ReplicaProgress| progress.lag_bytes == Some(0);
    let progress = until(&*store, caught_up).await;
    assert_eq!((progress.state.as_str(), progress.sync_state.as_str()), ("streaming", "async"));
    assert_eq!(progress.lag, Some(Duration::ZERO));

    let (writer, reader) = (primary.client("postgres").await.unwrap(), replica.client("postgres").await.unwrap());
    reader.batch_execute("SELECT pg_wal_replay_pause()").await.unwrap();
    writer.batch_execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) AS i").await.unwrap();
    let behind = until(&*store, |progress| progress.lag_bytes > Some(0) && progress.lag.is_some()).await;
    writer.batch_execute("INSERT INTO t SELECT i FROM generate_series(1, 1000) AS i").await.unwrap();
    until(&*store, |progress| progress.lag_bytes > behind.lag_bytes).await;
    reader.batch_execute("SELECT pg_wal_replay_resume()").await.unwrap();
    assert_eq!(until(&*store, caught_up).await.lag, Some(Duration::ZERO));

    drop(replica);
    while !store.replicas().await.unwrap().is_empty() {}
}

/// What a store sees that was given a replica's address. A copy of a replica can only be made where whole pages are logged.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_has_replicas_too() {
    let primary = Postgres::start(true).await.unwrap();
    let near = primary.replica("near").await.unwrap();
    let _far = near.replica("far").await.unwrap();
    let store = open(&near.url("postgres")).await;
    until(&*store, |progress| progress.lag_bytes == Some(0)).await;
    assert_eq!(store.replicas().await.unwrap()[0].name, "far");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_privilege_a_replica_has_a_name_alone() {
    let primary = Postgres::start(false).await.unwrap();
    let _replica = primary.replica("near").await.unwrap();
    let superuser = primary.client("postgres").await.unwrap();
    superuser.batch_execute("CREATE ROLE plain LOGIN").await.unwrap();
    let store = open(&primary.url("postgres").replace("postgres@", "plain@")).await;
    let hidden = Replica { name: "near".to_owned(), address: None, progress: None };
    assert_eq!(store.replicas().await.unwrap(), [hidden]);
    superuser.batch_execute("GRANT pg_read_all_stats TO plain").await.unwrap();
    until(&*store, |progress| progress.state == "streaming").await;
}
