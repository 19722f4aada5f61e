//! The changes that PostgreSQL's triggers record, and the process that follows them.

use std::collections::BTreeSet;
use std::sync::Arc;

use tutord_core::model::UserChanges;
use tutord_core::model::change::{Change, ChangeKind};
use tutord_core::operations::ChangeFeed;
use tutord_core::{Database, Timestamp};
use tutord_db::DatabaseOptions;

use crate::exercises::{done, moment};
use crate::fixture::{self, Fixture};

async fn with_node(store: &Fixture, node: u64) -> Arc<dyn Database> {
    tutord_db::open(&store.url, &DatabaseOptions { node: Some(node), ..DatabaseOptions::default() }).await.unwrap()
}

/// Returns the changes of the feed without their numbers.
async fn noted(feed: &mut dyn ChangeFeed) -> BTreeSet<String> {
    let changes = next(feed).await;
    feed.acknowledge(&changes).await.unwrap();
    changes.iter().map(|change| format!("{:?} {:?} {:?}", change.kind, change.user_id, change.item_id)).collect()
}

async fn next(feed: &mut dyn ChangeFeed) -> Vec<Change> {
    loop {
        let changes = feed.next(10_000).await.unwrap();
        if !changes.is_empty() {
            return changes;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_by_other_programs_are_announced() {
    let store = fixture::postgres().await;
    let mut feed = store.follow_changes().await.unwrap().unwrap();
    let (ada, bob) = (store.student("ada").await.id, store.student("bob").await.id);
    assert_eq!(
        noted(feed.as_mut()).await,
        [format!("Profile Some({ada}) None"), format!("Profile Some({bob}) None")].into()
    );
    let id = store.conversation(ada, "a").await;
    assert_eq!(noted(feed.as_mut()).await, [format!("Conversation Some({ada}) Some({id})")].into());
    let message = format!(
        "INSERT INTO messages (conversation_id, position, role, content, created_at) VALUES ({id}, 1, 'user', 'x', now())"
    );
    store.execute(&message).await;
    assert_eq!(noted(feed.as_mut()).await, [format!("Conversation Some({ada}) Some({id})")].into());
    // What changes hands concerns both.
    store.execute(&format!("UPDATE conversations SET user_id = {bob} WHERE id = {id}")).await;
    let both = [format!("Conversation Some({ada}) Some({id})"), format!("Conversation Some({bob}) Some({id})")];
    assert_eq!(noted(feed.as_mut()).await, both.into());
    store.execute("UPDATE achievements SET title = title || '!'; INSERT INTO achievements (slug, name, title, description, \
        category, rarity, requirement_value, requirement_description) VALUES ('a', 'a', 'a', 'a', 'streak', 'common', 1, 'a')")
        .await;
    assert_eq!(noted(feed.as_mut()).await, ["Catalogue None None".to_owned()].into());
    // Very many are noted as all of them.
    store
        .execute(
            "INSERT INTO users (email, email_folded, password_hash, name, created_at, updated_at) \
            SELECT n, n, '', n, now(), now() FROM (SELECT 'many' || n AS n FROM generate_series(1, 1001) AS n) AS _",
        )
        .await;
    let changes = next(feed.as_mut()).await;
    assert_eq!((changes.len(), changes[0].kind, changes[0].user_id), (1, ChangeKind::Profile, None));
    // What is not done comes again.
    assert_eq!(next(feed.as_mut()).await, changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_follows() {
    let store = fixture::postgres().await;
    let feed = store.follow_changes().await.unwrap().unwrap();
    assert!(store.follow_changes().await.unwrap().is_none());
    drop(feed);
    // The server notices that the connection is gone in its own time.
    while store.follow_changes().await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_acknowledges_its_own_writes_and_another_does_it_for_one_that_died() {
    let store = fixture::postgres().await;
    let (ada, bob) = (store.student("ada").await.id, store.student("bob").await.id);
    let mut feed = store.follow_changes().await.unwrap().unwrap();
    noted(feed.as_mut()).await;
    let rename = || UserChanges { name: Some("another".to_owned()), ..UserChanges::default() };
    let (alive, dead) = (with_node(&store, 1).await, with_node(&store, 2).await);
    alive.update_user(ada, rename()).await.unwrap().unwrap();
    let own = alive.own_changes(10).await.unwrap();
    assert_eq!((own.len(), dead.own_changes(10).await.unwrap()), (1, Vec::new()));
    alive.acknowledge_changes(&own).await.unwrap();
    assert_eq!(alive.own_changes(10).await.unwrap(), Vec::<i64>::new());
    dead.update_user(bob, rename()).await.unwrap().unwrap();
    drop(dead);
    assert_eq!(noted(feed.as_mut()).await, [format!("Profile Some({bob}) None")].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_two_changes_of_ones_own() {
    let store = fixture::postgres().await;
    let ada = store.student("ada").await.id;
    let exercise = store.catalogue(1).await[0];
    store.start(ada, exercise).await;
    let own = with_node(&store, 1).await;
    done(own.complete_exercise(ada, exercise, None, moment(0, 0)).await.unwrap());
    // The exercise is completed, and the user changes: the rows of sums and leaderboards that go with these are not
    // noted.
    assert_eq!(own.own_changes(100).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_nobody_follows_are_removed() {
    let store = fixture::postgres().await;
    for name in ["ada", "bob", "eve"] {
        store.student(name).await;
    }
    let now = Timestamp::now();
    assert_eq!(store.purge_changes(now - std::time::Duration::from_secs(60), 2).await.unwrap(), 0);
    let later = now + std::time::Duration::from_secs(60);
    assert_eq!(store.purge_changes(later, 2).await.unwrap(), 2);
    assert_eq!(store.purge_changes(later, 2).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_notes_nothing() {
    let store = fixture::sqlite().await;
    store.student("ada").await;
    assert!(store.follow_changes().await.unwrap().is_none());
    assert_eq!(store.own_changes(10).await.unwrap(), Vec::<i64>::new());
    assert_eq!(store.purge_changes(Timestamp::now(), 10).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_tells_its_own_writes_from_those_of_another_process() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("test.db").display());
    let store = tutord_db::open(&url, &DatabaseOptions { serves: true, ..DatabaseOptions::default() }).await.unwrap();
    let mut feed = store.follow_changes().await.unwrap().unwrap();
    store.migrate().await.unwrap();
    store.purge_conversations(1).await.unwrap();
    assert_eq!(feed.next(10).await.unwrap(), []);
    let other = tutord_db::open(&url, &DatabaseOptions::default()).await.unwrap();
    other.purge_expired(Timestamp::now(), 1).await.unwrap();
    assert_eq!(feed.next(10).await.unwrap(), [], "nothing was removed");
    other.try_write().await.unwrap();
    let changes = feed.next(10).await.unwrap();
    assert_eq!(changes.len(), 1, "{changes:?}");
    feed.acknowledge(&changes).await.unwrap();
    assert_eq!(feed.next(10).await.unwrap(), []);
}
