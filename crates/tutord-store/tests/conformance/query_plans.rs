//! Every list query of the PostgreSQL adapter is served by an index.
//!
//! The statements are those that the adapter really sends: auto_explain puts their plans into the
//! server's log, and a function makes the log readable here.

use testbed::Postgres;
use tutord_store::model::Order;
use tutord_store::{PageRequest, Position, Store};

use crate::fixture::{self, Fixture};

/// Tables that grow with use: none may be read from end to end.
const GROWING: [&str; 7] =
    ["users", "sessions", "session_tokens", "email_tokens", "conversations", "messages", "idempotency_keys"];

/// A well-filled database, and a store on it whose plans are logged.
async fn explained() -> (Fixture, std::sync::Arc<dyn Store>, String) {
    let fixture = fixture::postgres().await;
    fixture.seed(&crate::seed::plan(2_000, 10_000, 60_000, 10), &|_| {}).await.unwrap();
    let tag = fixture.url.rsplit('/').next().unwrap().to_owned();
    let client = Postgres::shared().await.unwrap().client(&tag).await.unwrap();
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_nested_statements = on",
        // Planned without a look at the values, as a prepared statement is after a few uses.
        "plan_cache_mode = force_generic_plan",
        "log_min_messages = log",
    ] {
        client.batch_execute(&format!("ALTER DATABASE {tag} SET {setting}")).await.unwrap();
    }
    let store = fixture::open(&fixture.url).await;
    (fixture, store, tag)
}

/// The lines of the server's log since `from` that tell of a sequential scan of a growing table.
async fn sequential_scans(tag: &str, from: i64) -> (Vec<String>, usize) {
    let client = Postgres::shared().await.unwrap().client(tag).await.unwrap();
    let log = client.query_one("SELECT pg_read_file(current_setting('data_directory') || '/../server.log')", &[]).await;
    let log: String = log.unwrap().get(0);
    let log = &log[usize::try_from(from).unwrap()..];
    let scans = log
        .lines()
        .filter(|line| line.contains("Seq Scan on "))
        .filter(|line| {
            let table = line.split("Seq Scan on ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            GROWING.contains(&table)
        })
        .map(|line| line.trim().to_owned())
        .collect();
    (scans, log.matches("Query Text:").count())
}

async fn log_length(tag: &str) -> i64 {
    let client = Postgres::shared().await.unwrap().client(tag).await.unwrap();
    let sql = "SELECT size FROM pg_stat_file(current_setting('data_directory') || '/../server.log')";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Every read that a page or a request makes, at the beginning and deep inside.
async fn read_everything(store: &dyn Store) {
    let plan = crate::seed::plan(2_000, 10_000, 60_000, 10);
    let user = store.credentials(&plan.email(1)).await.unwrap().unwrap().user.id;
    store.user(user).await.unwrap();
    store.identity(&[1; 32]).await.unwrap();
    let list = store.list_conversations(user, &PageRequest::first(5)).await.unwrap();
    let next = list.next.expect("the first student has many conversations");
    for position in [Position::Offset(10), Position::Cursor(next)] {
        store.list_conversations(user, &PageRequest { limit: 5, position }).await.unwrap();
    }
    let id = list.items[0].id;
    for order in [Order::Asc, Order::Desc] {
        let first = store.conversation_page(user, id, order, &PageRequest::first(2)).await.unwrap().unwrap();
        let mut positions = vec![Position::Offset(1)];
        positions.extend(first.messages.next.map(Position::Cursor));
        for position in positions {
            let page = PageRequest { limit: 2, position };
            store.conversation_page(user, id, order, &page).await.unwrap().unwrap();
        }
    }
    store.history(user, id, 100, 50).await.unwrap();
    store.last_exchange(user, id).await.unwrap();
    store.purge_conversations(100).await.unwrap();
}

// One test, not two: both read the one log of the shared server.
#[tokio::test(flavor = "multi_thread")]
async fn no_list_query_scans_a_growing_table_and_a_missing_index_is_found() {
    let (_fixture, store, tag) = explained().await;
    read_everything(store.as_ref()).await;
    let from = log_length(&tag).await;
    read_everything(store.as_ref()).await;
    let (scans, plans) = sequential_scans(&tag, from).await;
    assert!(plans >= 20, "only {plans} plans were logged");
    assert_eq!(scans, Vec::<String>::new());

    let client = Postgres::shared().await.unwrap().client(&tag).await.unwrap();
    client.batch_execute("DROP INDEX conversations_activity; DROP INDEX conversations_user").await.unwrap();
    let from = log_length(&tag).await;
    let user = 1;
    store.list_conversations(user, &PageRequest::first(5)).await.unwrap();
    let (scans, _) = sequential_scans(&tag, from).await;
    assert!(!scans.is_empty(), "the missing index was not noticed");
}
