use tutord_core::Timestamp;
use tutord_core::model::{AppendOutcome, IDEMPOTENCY_KEY_LIFETIME, MessageTarget};

use crate::fixture::{self, Fixture, message, open};
use crate::pool::until_waiting;

crate::on_both!(
    migrations_apply_once,
    the_clock_is_this_machines,
    old_idempotency_keys_are_purged,
    shapes_are_planned_without_running,
    the_servers_counts_are_read_where_there_are_some,
);

async fn migrations_apply_once(store: &Fixture) {
    assert_eq!(store.pending_migrations().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.migrate().await.unwrap(), Vec::<String>::new());
}

async fn the_clock_is_this_machines(store: &Fixture) {
    let before = Timestamp::now();
    let clock = store.ping().await.unwrap();
    assert!(before <= clock && clock <= Timestamp::now());
}

async fn old_idempotency_keys_are_purged(store: &Fixture) {
    let user = store.student("ada").await;
    let mut new = message(user.id, MessageTarget::New { title: "t".to_owned() }, "hello");
    new.idempotency_key = Some("key-1".to_owned());
    let first = fixture::stored(store.append_user_message(new.clone()).await.unwrap());
    assert_eq!(store.purge_expired(first.created_at + IDEMPOTENCY_KEY_LIFETIME / 2, 100).await.unwrap(), 0);
    assert!(matches!(store.append_user_message(new.clone()).await.unwrap(), AppendOutcome::Repeated(_)));
    assert_eq!(store.purge_expired(first.created_at + IDEMPOTENCY_KEY_LIFETIME * 2, 100).await.unwrap(), 1);
    assert!(matches!(store.append_user_message(new).await.unwrap(), AppendOutcome::Stored(..)));
}

async fn shapes_are_planned_without_running(store: &Fixture) {
    let user = store.student("ada").await;
    store.conversation(user.id, "kept").await;
    let plan = store.explain("SELECT title FROM conversations WHERE created_at > ? LIMIT ?").await.unwrap().unwrap();
    assert!(plan.contains("conversations"), "{plan}");
    let none = store.explain("SELECT count(*) FROM conversations").await.unwrap().unwrap();
    assert!(none.contains("conversations"), "{none}");
    let delete = store.explain("DELETE FROM conversations WHERE title <> ?").await.unwrap().unwrap();
    assert!(delete.contains("conversations"), "{delete}");
    assert_eq!(store.count("conversations").await, 1, "nothing was run");
    for shape in ["BEGIN", "SELECT ?; DELETE FROM conversations", "SELECT ? FROM no_such_table", "SELECT FROM WHERE"] {
        assert_eq!(store.explain(shape).await.unwrap(), None, "{shape}");
    }
}

async fn the_servers_counts_are_read_where_there_are_some(store: &Fixture) {
    assert_eq!(store.server_statements(5).await.unwrap(), None);
    if store.backend() == "sqlite" {
        return;
    }
    store.execute("CREATE EXTENSION pg_stat_statements").await;
    let user = store.student("ada").await;
    store.conversation(user.id, "counted").await;
    let counted = store.server_statements(100).await.unwrap().unwrap();
    assert!(counted.is_sorted_by(|one, other| one.total_ms >= other.total_ms));
    let insert = counted.iter().find(|statement| statement.sql.starts_with("INSERT INTO \"conversations\"")).unwrap();
    assert_eq!((insert.calls, insert.rows), (1, 1));
    assert!(insert.total_ms > 0.0 && insert.sql.contains("$1"), "{insert:?}");
    assert_eq!(store.server_statements(2).await.unwrap().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_sqlite_file_needs_every_migration() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&format!("sqlite://{}", directory.path().join("new.db").display())).await;
    let pending = store.pending_migrations().await.unwrap();
    assert_eq!(pending.first().map(String::as_str), Some("0001_initial"));
    assert_eq!(store.migrate().await.unwrap().len(), pending.len());
    assert!(store.pending_migrations().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_may_migrate_one_postgres_at_once() {
    let url = testbed::Postgres::shared().await.unwrap().empty_database().await.unwrap();
    let (first, second, third) = (open(&url).await, open(&url).await, open(&url).await);
    let pending = first.pending_migrations().await.unwrap();
    assert_eq!(pending.first().map(String::as_str), Some("0001_initial"));
    let (one, two) = tokio::join!(
        tokio::spawn(async move { first.migrate().await.unwrap().len() }),
        tokio::spawn(async move { second.migrate().await.unwrap().len() }),
    );
    assert_eq!(one.unwrap() + two.unwrap(), pending.len(), "each migration was applied by one of them");
    assert!(third.pending_migrations().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_may_purge_one_postgres_at_once() {
    let store = fixture::postgres().await;
    let user = store.student("ada").await;
    let id = store.conversation(user.id, "deleted").await;
    for number in 0..10 {
        store.say(user.id, id, &number.to_string()).await;
    }
    store.delete_conversation(user.id, id).await.unwrap();
    let other = store.client().await;
    other.batch_execute("BEGIN; DELETE FROM messages WHERE position <= 4").await.unwrap();
    let purge = tokio::spawn({
        let store = store.store.clone();
        async move { store.purge_conversations(4).await.unwrap() }
    });
    until_waiting(&other, 1).await;
    other.batch_execute("COMMIT").await.unwrap();
    assert_eq!(purge.await.unwrap(), 0, "the other one had this batch");
    assert_eq!(store.count("messages").await, 6, "the rest did not go at once with the conversation");
    assert_eq!(store.purge_conversations(4).await.unwrap(), 4);
    assert_eq!(store.purge_conversations(4).await.unwrap(), 3);
    assert_eq!(store.count("conversations").await, 0);
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_refused() {
    for url in [
        "mysql://localhost/x",
        "nonsense",
        "postgres://localhost/x?sslmode=sometimes",
        "sqlite://",
        "sqlite://:memory:",
        "sqlite:///",
        "sqlite:///tmp",
        "sqlite:///no/such/directory/x.db",
    ] {
        let Err(error) = tutord_db::open(url, &tutord_db::DatabaseOptions::default()).await else {
            panic!("{url} was accepted")
        };
        assert!(matches!(error, tutord_core::Error::InvalidUrl(_)), "{url}: {error}");
    }
}
