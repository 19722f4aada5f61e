use tutord_store::model::Order;
use tutord_store::seed::SeedPlan;
use tutord_store::{Error, PageRequest};

use crate::fixture::{self, Fixture};

crate::on_both!(seeded_counters_agree_with_rows, seeding_twice_is_refused_and_changes_nothing);

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

async fn seeded_counters_agree_with_rows(store: &Fixture) {
    let plan = plan(3, 12, 300, 2);
    assert_eq!(store.seed(&plan, &|_| {}).await.unwrap(), 317);
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
    let before = shown(store, &plan, 1).await;
    let again = store.seed(&plan, &|_| {}).await;
    assert!(matches!(again, Err(Error::Conflict(_))), "{again:?}");
    assert_eq!(shown(store, &plan, 1).await, before);
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
}
