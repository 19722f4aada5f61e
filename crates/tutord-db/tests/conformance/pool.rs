//! PostgreSQL's pool: what callers meet when connections are short, slow or lost.

use std::time::Duration;

use tokio_postgres::Client;
use tutord_core::model::MessageTarget;
use tutord_core::{Database, Error, PageRequest};
use tutord_db::DatabaseOptions;

use crate::fixture::{self, Fixture, message};

/// The number of polls of the server's state, and the pause between two polls: a minute in total.
const LOOKS: usize = 12_000;
const PAUSE: Duration = Duration::from_millis(5);

/// A client that blocks every call of the store until it is dropped or ends its transaction.
async fn blocker(fixture: &Fixture) -> Client {
    let client = fixture.client().await;
    client.batch_execute("BEGIN; LOCK TABLE conversations IN ACCESS EXCLUSIVE MODE").await.unwrap();
    client
}

/// Returns the number of tutord's statements that wait for the lock.
async fn waiting(client: &Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
               AND application_name = 'tutord' AND wait_event_type = 'Lock'";
    // Within a transaction the view would go on showing what it showed first.
    client.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
    client.query_one(sql, &[]).await.unwrap().get(0)
}

pub(crate) async fn until_waiting(client: &Client, expected: i64) {
    // The server sends no event when a statement starts or stops to wait, so the test polls.
    for _ in 0..LOOKS {
        if waiting(client).await == expected {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("{} statements wait instead of {expected}", waiting(client).await);
}

async fn store(url: &str, options: DatabaseOptions) -> std::sync::Arc<dyn Database> {
    tutord_db::open(url, &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_free_connection_is_overload() {
    let fixture = fixture::postgres().await;
    let options = DatabaseOptions {
        pool_size: 1,
        max_overflow: 0,
        acquire_timeout: Duration::from_millis(50),
        ..DatabaseOptions::default()
    };
    let store = store(&fixture.url, options).await;
    let blocker = blocker(&fixture).await;
    let held = tokio::spawn({
        let store = store.clone();
        async move { store.list_conversations(1, &PageRequest::first(1)).await }
    });
    until_waiting(&blocker, 1).await;
    assert!(matches!(store.ping().await, Err(Error::Overloaded)));
    blocker.batch_execute("ROLLBACK").await.unwrap();
    held.await.unwrap().unwrap();
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_ends_by_itself() {
    let fixture = fixture::postgres().await;
    let options = DatabaseOptions { statement_timeout: Duration::from_millis(50), ..DatabaseOptions::default() };
    let store = store(&fixture.url, options).await;
    let blocker = blocker(&fixture).await;
    let slow = store.list_conversations(1, &PageRequest::first(1)).await;
    assert!(matches!(slow, Err(Error::Timeout)), "{slow:?}");
    assert_eq!(waiting(&blocker).await, 0);
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_takes_its_statement_along() {
    let fixture = fixture::postgres().await;
    let store =
        store(&fixture.url, DatabaseOptions { pool_size: 1, max_overflow: 0, ..DatabaseOptions::default() }).await;
    let blocker = blocker(&fixture).await;
    let left = tokio::spawn({
        let store = store.clone();
        async move { store.list_conversations(1, &PageRequest::first(1)).await }
    });
    until_waiting(&blocker, 1).await;
    left.abort();
    until_waiting(&blocker, 0).await;
    // The only connection is free again, although the lock is still held.
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_a_transaction_leaves_no_trace() {
    let fixture = fixture::postgres().await;
    let store =
        store(&fixture.url, DatabaseOptions { pool_size: 1, max_overflow: 0, ..DatabaseOptions::default() }).await;
    let user = fixture.student("ada").await;
    let id = fixture.conversation(user.id, "talk").await;
    let blocker = fixture.client().await;
    // Counting in the conversation goes ahead, the message itself has to wait.
    blocker.batch_execute("BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let left = tokio::spawn({
        let (store, new) = (store.clone(), message(user.id, MessageTarget::Existing(id), "hello"));
        async move { store.append_user_message(new).await }
    });
    until_waiting(&blocker, 1).await;
    left.abort();
    until_waiting(&blocker, 0).await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    // The row of the conversation is unlocked, and the counter is unchanged.
    let stored = store.append_user_message(message(user.id, MessageTarget::Existing(id), "hello")).await.unwrap();
    assert_eq!(fixture::stored(stored).position, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_lost_during_a_call_is_told_as_such() {
    let fixture = fixture::postgres().await;
    let user = fixture.student("ada").await;
    let id = fixture.conversation(user.id, "talk").await;
    let store =
        store(&fixture.url, DatabaseOptions { pool_size: 1, max_overflow: 0, ..DatabaseOptions::default() }).await;
    let blocker = blocker(&fixture).await;
    let terminate = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
                     WHERE datname = current_database() AND application_name = 'tutord' AND wait_event_type = 'Lock'";
    for transaction in [false, true] {
        let call = tokio::spawn({
            let store = store.clone();
            async move {
                if transaction {
                    store.append_user_message(message(user.id, MessageTarget::Existing(id), "hello")).await.map(drop)
                } else {
                    store.list_conversations(user.id, &PageRequest::first(1)).await.map(drop)
                }
            }
        });
        until_waiting(&blocker, 1).await;
        // A call that changes nothing is repeated on another connection, which is lost too. The blocker itself would see
        // the activity as it was at the beginning of its transaction.
        let administrator = fixture.client().await;
        while !call.is_finished() {
            administrator.query(terminate, &[]).await.unwrap();
        }
        let lost = call.await.unwrap();
        let is_told = matches!(lost, Err(Error::Unavailable(_) | Error::Refused(_, _)));
        assert!(is_told, "transaction: {transaction}: {lost:?}");
    }
    blocker.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(store.list_conversations(user.id, &PageRequest::first(1)).await.unwrap().items[0].message_count, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_pool_size_are_closed_after_the_peak() {
    let fixture = fixture::postgres().await;
    let store =
        store(&fixture.url, DatabaseOptions { pool_size: 1, max_overflow: 3, ..DatabaseOptions::default() }).await;
    let blocker = blocker(&fixture).await;
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.list_conversations(1, &PageRequest::first(1)).await.map(drop) })
        })
        .collect();
    until_waiting(&blocker, 4).await;
    blocker.batch_execute("ROLLBACK").await.unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let open =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tutord'";
    // Outside of a transaction each look is a fresh one.
    for _ in 0..LOOKS {
        // As somebody always does: a connection that comes back is closed or not.
        store.ping().await.unwrap();
        if blocker.query_one(open, &[]).await.unwrap().get::<_, i64>(0) <= 1 {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("connections beyond the pool's size stay open");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_replaced() {
    let fixture = fixture::postgres().await;
    let store =
        store(&fixture.url, DatabaseOptions { pool_size: 1, max_overflow: 0, ..DatabaseOptions::default() }).await;
    store.ping().await.unwrap();
    let admin = fixture.client().await;
    let lost = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity \
                WHERE datname = current_database() AND application_name = 'tutord'";
    admin.query_one(lost, &[]).await.unwrap();
    // A call may still find the connection before its loss was noticed: that one fails, none after it.
    let _ = store.ping().await;
    store.ping().await.unwrap();
}
