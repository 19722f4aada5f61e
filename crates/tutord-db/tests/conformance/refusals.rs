//! The store reports refusals of the database by kind, and repeats a call only if nothing can have been committed.

use std::sync::Arc;

use testbed::Postgres;
use tutord_core::model::{Difficulty, MessageTarget, NewAchievement, NewExercise, NewUserMessage};
use tutord_core::{Database, Error, Refusal};
use tutord_db::DatabaseOptions;

use crate::exercises::exercise;
use crate::fixture::{Fixture, message, new_user, open, postgres, sqlite, stored};

crate::on_both!(
    it_takes_writes_and_says_so,
    a_schema_of_a_later_version_is_refused_by_name,
    a_catalogue_is_loaded_once_for_each_version,
    all_of_many_first_starts_succeed,
);

async fn it_takes_writes_and_says_so(store: &Fixture) {
    store.try_write().await.unwrap();
    store.try_write().await.unwrap();
    let schema = store.schema().await.unwrap();
    assert!(schema.pending.is_empty());
    schema.check().unwrap();
    assert_eq!(schema.catalogue(), None);
}

async fn a_schema_of_a_later_version_is_refused_by_name(store: &Fixture) {
    // Migrations that this version does not know are no reason.
    store.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')").await;
    store.migrate().await.unwrap();
    store.schema().await.unwrap().check().unwrap();
    store.execute("UPDATE metadata SET value = '98.7.6' WHERE key = 'oldest_version'").await;
    for refused in [store.migrate().await.unwrap_err(), store.schema().await.unwrap().check().unwrap_err()] {
        assert!(matches!(&refused, Error::Incompatible { needed, .. } if needed == "98.7.6"), "{refused}");
    }
}

async fn a_catalogue_is_loaded_once_for_each_version(store: &Fixture) {
    let exercises: Vec<NewExercise> = (0..3).map(exercise).collect();
    let none: &[NewAchievement] = &[];
    let loaded = store.load_built_in_catalogue("one", &exercises, none).await.unwrap().unwrap();
    assert_eq!(loaded.created, 3);
    assert!(store.load_built_in_catalogue("one", &exercises, none).await.unwrap().is_none());
    assert_eq!(store.schema().await.unwrap().catalogue(), Some("one"));
    assert_eq!(store.load_built_in_catalogue("two", &exercises, none).await.unwrap().unwrap().unchanged, 3);
    // As a start left it that was killed in between.
    store.execute("DELETE FROM metadata WHERE key = 'catalogue'").await;
    store.execute("DELETE FROM exercises").await;
    assert_eq!(store.load_built_in_catalogue("two", &exercises, none).await.unwrap().unwrap().created, 3);
}

/// On a database that is empty, unlike the fixture's.
async fn all_of_many_first_starts_succeed(fixture: &Fixture) {
    let directory = tempfile::tempdir().unwrap();
    let url = if fixture.url.starts_with("sqlite://") {
        format!("sqlite://{}", directory.path().join("first.db").display())
    } else {
        Postgres::shared().await.unwrap().empty_database().await.unwrap()
    };
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let store = open(&url).await;
                store.migrate().await.unwrap();
                let exercises = [exercise(1)];
                store.load_built_in_catalogue("v", &exercises, &[]).await.unwrap().is_some()
            })
        })
        .collect();
    let mut loaded = 0;
    for start in starts {
        loaded += u32::from(start.await.unwrap());
    }
    assert_eq!(loaded, 1, "one of them loads the catalogue");
}

/// Makes each change of a user fail with a SQLSTATE and a text that says nothing, the first `times` times.
async fn fail(store: &Fixture, code: &str, times: u32) {
    store
        .execute(&format!(
            "DROP TRIGGER IF EXISTS refuse ON users;
             DROP SEQUENCE IF EXISTS attempts; CREATE SEQUENCE attempts;
             CREATE OR REPLACE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('attempts') <= {times} THEN
                     RAISE EXCEPTION USING ERRCODE = '{code}', MESSAGE = 'etwas ging schief';
                 END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER refuse BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION refuse()"
        ))
        .await;
}

async fn attempts(store: &Fixture) -> String {
    store.lines("SELECT last_value::text AS line FROM attempts").await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kind_is_told_by_the_code_and_not_by_the_language() {
    let store = postgres().await;
    let ada = store.student("ada").await;
    for (code, kind, tried) in [
        ("53100", Refusal::DiskFull, "1"),
        ("53200", Refusal::OutOfMemory, "1"),
        ("25006", Refusal::ReadOnly, "1"),
        ("42501", Refusal::PermissionDenied, "1"),
        ("42703", Refusal::SchemaMismatch, "1"),
        // It may have been carried out.
        ("08006", Refusal::ConnectionLost, "1"),
        ("57P01", Refusal::Restarting, "1"),
        ("40001", Refusal::Contention, "3"),
        ("40P01", Refusal::Contention, "3"),
        ("55P03", Refusal::Contention, "3"),
        ("0A000", Refusal::StalePlan, "3"),
    ] {
        fail(&store, code, 9).await;
        let refused = store.set_exercise_difficulty(ada.id, Difficulty::Hard).await.unwrap_err();
        assert_eq!(refused.refusal(), Some(kind), "{code}: {refused}");
        assert!(refused.to_string().contains("etwas ging schief"), "{refused}");
        assert_eq!(attempts(&store).await, tried, "{code}");
    }
    fail(&store, "22012", 9).await;
    let defect = store.set_exercise_difficulty(ada.id, Difficulty::Hard).await.unwrap_err();
    assert!(matches!(defect, Error::Query(_)), "{defect}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_repeated_and_succeeds() {
    let store = postgres().await;
    let ada = store.student("ada").await;
    for code in ["40001", "40P01", "0A000"] {
        fail(&store, code, 2).await;
        store.set_exercise_difficulty(ada.id, Difficulty::Hard).await.unwrap();
        assert_eq!(attempts(&store).await, "3", "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_loses_a_deadlock_is_repeated_and_stores_once() {
    let store = postgres().await;
    let ada = store.student("ada").await;
    let conversation = store.conversation(ada.id, "contended").await;
    let name = store.url.rsplit('/').next().unwrap();
    store.execute(&format!("ALTER DATABASE {name} SET deadlock_timeout = '2s'")).await;
    // Connections from now on have it.
    let victim = open(&store.url).await;
    let client = store.client().await;
    let lock = format!("SELECT FROM users WHERE id = {} FOR UPDATE", ada.id);
    client.batch_execute(&format!("BEGIN; SET LOCAL deadlock_timeout = '1h'; {lock}")).await.unwrap();
    let key = Some("once".to_owned());
    let new =
        NewUserMessage { idempotency_key: key, ..message(ada.id, MessageTarget::Existing(conversation), "hello") };
    let appending = tokio::spawn(async move { victim.append_user_message(new).await });
    // It holds the conversation, and waits for the user.
    let waiting = "SELECT count(*)::text AS line FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while store.lines(waiting).await != ["1"] {
        tokio::task::yield_now().await;
    }
    client
        .batch_execute(&format!("UPDATE conversations SET title = 'changed' WHERE id = {conversation}; COMMIT"))
        .await
        .unwrap();
    stored(appending.await.unwrap().unwrap());
    assert_eq!(store.count("messages").await, 1);
    let deadlocks = "SELECT deadlocks::text AS line FROM pg_stat_database WHERE datname = current_database()";
    while store.lines(deadlocks).await != ["1"] {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_full_is_written_to_before_it_counts_as_good() {
    let store = postgres().await;
    store.try_write().await.unwrap();
    let ada = store.student("ada").await;
    fail(&store, "53100", 1).await;
    store.set_exercise_difficulty(ada.id, Difficulty::Hard).await.unwrap_err();
    // Small rows find room where larger ones do not.
    store
        .execute(
            "CREATE FUNCTION large() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN
                 IF length(NEW.value) > 30000 THEN RAISE EXCEPTION USING ERRCODE = '53100'; END IF;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER large BEFORE INSERT OR UPDATE ON metadata FOR EACH ROW EXECUTE FUNCTION large()",
        )
        .await;
    for _ in 0..2 {
        assert_eq!(store.try_write().await.unwrap_err().refusal(), Some(Refusal::DiskFull));
    }
    store.execute("DROP TRIGGER large ON metadata").await;
    store.try_write().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_were_prepared_survive_a_change_of_the_schema() {
    let store = postgres().await;
    let ada = store.student("ada").await;
    let read = async || store.user(ada.id).await.unwrap().unwrap();
    // More than one connection has it prepared.
    tokio::join!(read(), read(), read());
    store.execute("ALTER TABLE users ALTER COLUMN bio TYPE VARCHAR(3000)").await;
    for _ in 0..5 {
        assert_eq!(read().await.id, ada.id);
    }
    tokio::join!(read(), read(), read());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_read_and_written_to_when_it_does_again() {
    let store = postgres().await;
    let ada = store.student("ada").await;
    let name = store.url.rsplit('/').next().unwrap().to_owned();
    store.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let other = open(&store.url).await;
    assert!(other.user(ada.id).await.unwrap().is_some());
    for refused in [
        other.set_exercise_difficulty(ada.id, Difficulty::Hard).await.unwrap_err(),
        other.create_user(new_user("eve@example.com")).await.unwrap_err(),
        other.try_write().await.unwrap_err(),
    ] {
        assert_eq!(refused.refusal(), Some(Refusal::ReadOnly), "{refused}");
    }
    let reset = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    store.execute(&format!("BEGIN READ WRITE; {reset}; COMMIT")).await;
    other.try_write().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_server_ends_fail_no_read_and_no_transaction() {
    let store = postgres().await;
    let ada = store.student("ada").await;
    for _ in 0..5 {
        tokio::join!(async { store.user(ada.id).await.unwrap() }, async { store.user(ada.id).await.unwrap() });
        store
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
            .await;
        assert!(store.user(ada.id).await.unwrap().is_some());
        store.conversation(ada.id, "still here").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_privileges_and_connections_is_told_so() {
    let store = postgres().await;
    let name = store.url.rsplit('/').next().unwrap().to_owned();
    store.execute(&format!("CREATE ROLE {name} LOGIN CONNECTION LIMIT 1")).await;
    let url = store.url.replacen("://postgres@", &format!("://{name}@"), 1);
    let limited: Arc<dyn Database> = open(&url).await;
    let refused = limited.user(1).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::PermissionDenied), "{refused}");
    // Its one connection is the pool's.
    let refused = open(&url).await.ping().await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::TooManyConnections), "{refused}");
    drop(limited);
    store.execute(&format!("ALTER ROLE {name} NOLOGIN")).await;
    let refused = open(&url).await.ping().await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::AccessDenied), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_only() {
    let primary = Postgres::start(false).await.unwrap();
    let url = primary.empty_database().await.unwrap();
    open(&url).await.migrate().await.unwrap();
    let standby = primary.replica("standby").await.unwrap();
    let store = open(&standby.url(url.rsplit('/').next().unwrap())).await;
    store.ping().await.unwrap();
    assert_eq!(store.try_write().await.unwrap_err().refusal(), Some(Refusal::ReadOnly));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_is_used_again_when_it_is_back() {
    let mut postgres = Postgres::start(true).await.unwrap();
    let url = postgres.empty_database().await.unwrap();
    let store = tutord_db::open(&url, &DatabaseOptions::default()).await.unwrap();
    store.migrate().await.unwrap();
    store.try_write().await.unwrap();
    postgres.kill().unwrap();
    let refused = store.try_write().await.unwrap_err();
    assert!(!matches!(refused, Error::Query(_)), "{refused}");
    postgres.restart().await.unwrap();
    store.try_write().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_schema_that_does_not_fit_is_named() {
    let store = sqlite().await;
    store.execute("DROP TABLE idempotency_keys; ALTER TABLE users RENAME COLUMN bio TO biography").await;
    let refused = store.user(1).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(Refusal::SchemaMismatch), "{refused}");
}
