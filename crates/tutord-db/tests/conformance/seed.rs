use std::sync::Mutex;

use tutord_core::model::Order;
use tutord_core::operations::SeedPlan;
use tutord_core::{Error, PageRequest};

use crate::fixture::{self, Fixture};

crate::on_both!(
    seeded_counters_agree_with_rows,
    seeding_twice_is_refused_and_changes_nothing,
    another_seed_adds_to_what_is_there,
    ids_of_removed_rows_do_not_return,
);

pub(crate) fn plan(users: u64, conversations: u64, messages: u64, exercises: u64) -> SeedPlan {
    SeedPlan { users, conversations, messages, exercises, seed: 11, password_hash: "$argon2id$fake".to_owned() }
}

/// Everything that the API shows of a seeded student.
async fn shown(store: &Fixture, plan: &SeedPlan, number: u64) -> String {
    let user = store.credentials(&plan.email(number)).await.unwrap().unwrap().user;
    let list = store.list_conversations(user.id, &PageRequest::first(100)).await.unwrap();
    let mut shown = format!("{user:?} {list:?}");
    for conversation in &list.items {
        let request = PageRequest::first(200);
        let page = store.conversation_page(user.id, conversation.id, Order::Asc, &request).await.unwrap().unwrap();
        assert_eq!(page.messages.items.len() as i64, conversation.message_count);
        if let Some(last) = page.messages.items.last() {
            assert_eq!(conversation.last_message_at, last.created_at);
            assert_eq!(last.position, conversation.message_count);
        }
        shown += &format!("{page:?}");
    }
    shown
}

/// Every seeded row with all its columns but the times, which [`shown`] compares.
async fn everything(store: &Fixture) -> Vec<String> {
    let mut lines = Vec::new();
    for (table, columns) in [
        ("users", "email_folded || password_hash || name || programming_language || skill_level || role"),
        ("exercises", "title || description || instructions || exercise_type || difficulty || topics || hints"),
        ("conversations", "user_id || title || context_type || message_count || COALESCE(last_message_preview, '-')"),
        ("messages", "conversation_id || ',' || position || role || content || COALESCE(reply_to, 0)"),
    ] {
        let rows = format!("SELECT '{table} ' || id || ' ' || {columns} AS line FROM {table} ORDER BY id");
        lines.extend(store.lines(&rows).await);
    }
    lines
}

async fn seeded_counters_agree_with_rows(store: &Fixture) {
    let plan = plan(3, 12, 300, 2);
    let told = Mutex::new(Vec::new());
    assert_eq!(store.seed(&plan, &|done| told.lock().unwrap().push(done)).await.unwrap(), 317);
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted() && told.last() == Some(&317), "{told:?}");
    for number in 1..=3 {
        shown(store, &plan, number).await;
    }
    // New rows get ids beyond the seeded ones.
    let user = store.student("ada").await;
    let id = store.conversation(user.id, "new").await;
    store.say(user.id, id, "hello").await;
}

async fn seeding_twice_is_refused_and_changes_nothing(store: &Fixture) {
    let plan = plan(2, 4, 20, 1);
    store.seed(&plan, &|_| {}).await.unwrap();
    let before = everything(store).await;
    for again in [plan.clone(), SeedPlan { users: 1, conversations: 9, messages: 0, ..plan }] {
        let again = store.seed(&again, &|_| {}).await;
        assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
        assert_eq!(everything(store).await, before);
    }
}

async fn another_seed_adds_to_what_is_there(store: &Fixture) {
    let (first, second) = (plan(2, 4, 20, 1), SeedPlan { seed: 12, ..plan(3, 5, 0, 0) });
    store.seed(&first, &|_| {}).await.unwrap();
    let before = shown(store, &first, 1).await;
    assert_eq!(store.seed(&second, &|_| {}).await.unwrap(), 8);
    assert_eq!(shown(store, &first, 1).await, before);
    shown(store, &second, 1).await;
    assert_eq!((store.count("users").await, store.count("conversations").await), (5, 9));
}

async fn ids_of_removed_rows_do_not_return(store: &Fixture) {
    let user = store.student("ada").await;
    let id = store.conversation(user.id, "removed").await;
    store.delete_conversation(user.id, id).await.unwrap();
    store.purge_conversations(10).await.unwrap();
    store.seed(&plan(1, 1, 0, 0), &|_| {}).await.unwrap();
    assert_eq!(store.lines("SELECT CAST(id AS TEXT) AS line FROM conversations").await, [(id + 1).to_string()]);
    assert_eq!(store.conversation(user.id, "new").await, id + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_databases_get_the_same_rows() {
    let plan = plan(2, 6, 100, 1);
    let (sqlite, postgres) = (fixture::sqlite().await, fixture::postgres().await);
    for store in [&sqlite, &postgres] {
        store.seed(&plan, &|_| {}).await.unwrap();
    }
    for number in 1..=2 {
        assert_eq!(shown(&sqlite, &plan, number).await, shown(&postgres, &plan, number).await);
    }
    assert_eq!(everything(&sqlite).await, everything(&postgres).await);
}
