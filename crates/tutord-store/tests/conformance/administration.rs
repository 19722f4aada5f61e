use tutord_store::Timestamp;

use crate::fixture::{Fixture, open};

crate::on_both!(migrations_apply_once, the_clock_is_this_machines);

async fn migrations_apply_once(store: &Fixture) {
    assert_eq!(store.pending_migrations().await.unwrap(), Vec::<String>::new());
    assert_eq!(store.migrate().await.unwrap(), Vec::<String>::new());
}

async fn the_clock_is_this_machines(store: &Fixture) {
    let before = Timestamp::now();
    let clock = store.ping().await.unwrap();
    assert!(before <= clock && clock <= Timestamp::now());
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
    let (first, second) = (open(&url).await, open(&url).await);
    let pending = first.pending_migrations().await.unwrap().len();
    let (one, two) = tokio::join!(
        tokio::spawn(async move { first.migrate().await.unwrap().len() }),
        tokio::spawn(async move { second.migrate().await.unwrap().len() }),
    );
    assert_eq!(one.unwrap() + two.unwrap(), pending, "each migration was applied by one of them");
}

#[tokio::test]
async fn addresses_that_cannot_be_used_are_refused() {
    for url in ["mysql://localhost/x", "nonsense", "postgres://localhost/x?sslmode=sometimes"] {
        let Err(error) = tutord_store::open(url, &tutord_store::StoreOptions::default()).await else {
            panic!("{url} was accepted")
        };
        assert!(matches!(error, tutord_store::Error::InvalidUrl(_)), "{url}: {error}");
    }
}
