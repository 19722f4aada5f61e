use tutord_core::model::{ContextType, NewConversation, PREVIEW_CHARS};
use tutord_core::{Page, PageRequest, Position};

use crate::fixture::{self, Fixture, reply};

crate::on_both!(
    pages_walk_the_list_once,
    equal_times_are_ordered_by_id,
    newest_activity_comes_first,
    a_page_costs_one_statement_whatever_its_size,
    others_conversations_do_not_exist,
    deleted_ones_are_hidden_then_purged,
    renaming_moves_only_an_empty_conversation,
    an_exercise_must_exist,
    the_naive_list_is_the_same_at_a_higher_price,
);

async fn titles(store: &Fixture, user_id: i64, request: PageRequest) -> (Vec<String>, Page<()>) {
    let page = store.list_conversations(user_id, &request).await.unwrap();
    let titles = page.items.iter().map(|conversation| conversation.title.clone()).collect();
    (titles, Page { items: Vec::new(), total: page.total, has_more: page.has_more, next: page.next, previous: None })
}

async fn pages_walk_the_list_once(store: &Fixture) {
    let other = store.student("other").await;
    store.conversation(other.id, "not listed").await;
    for size in 0..=7 {
        let user = store.student(&format!("student{size}")).await;
        for number in 0..size {
            store.conversation(user.id, &number.to_string()).await;
        }
        walk(store, user.id, &(0..size).rev().map(|number| number.to_string()).collect::<Vec<_>>()).await;
    }
}

async fn equal_times_are_ordered_by_id(store: &Fixture) {
    let user = store.student("ada").await;
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(store.conversation(user.id, &number.to_string()).await);
    }
    store.execute("UPDATE conversations SET last_message_at = (SELECT max(last_message_at) FROM conversations)").await;
    store.delete_conversation(user.id, ids[2]).await.unwrap();
    walk(store, user.id, &["5", "4", "3", "1", "0"].map(str::to_owned)).await;
    store.say(user.id, ids[1], "hello").await;
    walk(store, user.id, &["1", "5", "4", "3", "0"].map(str::to_owned)).await;
}

/// Walks the list by cursor and by offset, with pages of every size: each title comes once, in its place.
async fn walk(store: &Fixture, user_id: i64, expected: &[String]) {
    let size = expected.len() as i64;
    for limit in 1..=8 {
        let (mut by_cursor, mut by_offset) = (Vec::new(), Vec::new());
        let mut request = PageRequest::first(limit);
        loop {
            let (titles, page) = titles(store, user_id, request).await;
            by_cursor.extend(titles);
            assert_eq!(page.total, size);
            assert_eq!(page.has_more, (by_cursor.len() as i64) < size);
            assert_eq!(page.next.is_some(), page.has_more);
            let Some(next) = page.next else { break };
            request = PageRequest { limit, position: Position::Cursor(next) };
        }
        for offset in (0..size + limit).step_by(usize::try_from(limit).unwrap()) {
            let request = PageRequest { limit, position: Position::Offset(offset) };
            let (titles, page) = titles(store, user_id, request).await;
            assert_eq!((page.total, page.has_more), (size, offset + limit < size));
            by_offset.extend(titles);
        }
        assert_eq!(by_cursor, expected, "limit {limit}");
        assert_eq!(by_offset, expected, "limit {limit}");
    }
}

async fn newest_activity_comes_first(store: &Fixture) {
    let user = store.student("ada").await;
    let first = store.conversation(user.id, "first").await;
    let second = store.conversation(user.id, "second").await;
    let long = "é".repeat(PREVIEW_CHARS + 30);
    let question = store.say(user.id, first, "why?").await;
    store.append_reply(reply(user.id, &question, &long)).await.unwrap().unwrap();
    let page = store.list_conversations(user.id, &PageRequest::first(10)).await.unwrap();
    let [top, bottom] = page.items.as_slice() else { panic!("{page:?}") };
    assert_eq!((top.id, bottom.id), (first, second));
    assert_eq!(top.message_count, 2);
    assert_eq!(top.last_message_preview.as_deref(), Some("é".repeat(PREVIEW_CHARS).as_str()));
    assert_eq!(top.last_message_at, top.updated_at);
    assert_eq!((bottom.message_count, bottom.last_message_preview.as_ref()), (0, None));
    assert_eq!(bottom.last_message_at, bottom.updated_at);
}

async fn a_page_costs_one_statement_whatever_its_size(store: &Fixture) {
    let user = store.student("ada").await;
    let mut existing = 0;
    for size in [20, 200] {
        for number in existing..size {
            let id = store.conversation(user.id, &number.to_string()).await;
            store.say(user.id, id, "hello").await;
        }
        existing = size;
        let (page, issued) = fixture::count(store.list_conversations(user.id, &PageRequest::first(size))).await;
        assert_eq!((page.unwrap().items.len() as i64, issued), (size, 1));
    }
    let beyond = PageRequest { limit: 20, position: Position::Offset(existing) };
    let (page, issued) = fixture::count(store.list_conversations(user.id, &beyond)).await;
    assert_eq!((page.unwrap().total, issued), (existing, 2), "no row tells the total");
}

async fn others_conversations_do_not_exist(store: &Fixture) {
    let (ada, eve) = (store.student("ada").await, store.student("eve").await);
    let id = store.conversation(ada.id, "secret").await;
    assert!(store.rename_conversation(eve.id, id, "mine").await.unwrap().is_none());
    assert!(!store.delete_conversation(eve.id, id).await.unwrap());
    assert_eq!(store.list_conversations(eve.id, &PageRequest::first(5)).await.unwrap().total, 0);
    let renamed = store.rename_conversation(ada.id, id, "still mine").await.unwrap().unwrap();
    assert_eq!(renamed.title, "still mine");
}

async fn deleted_ones_are_hidden_then_purged(store: &Fixture) {
    let user = store.student("ada").await;
    let kept = store.conversation(user.id, "kept").await;
    store.say(user.id, kept, "stays").await;
    let deleted = store.conversation(user.id, "deleted").await;
    for number in 0..7 {
        store.say(user.id, deleted, &number.to_string()).await;
    }
    assert!(store.delete_conversation(user.id, deleted).await.unwrap());
    assert!(!store.delete_conversation(user.id, deleted).await.unwrap(), "only once");
    let page = store.list_conversations(user.id, &PageRequest::first(5)).await.unwrap();
    assert_eq!((page.total, page.items[0].id), (1, kept));
    assert!(store.rename_conversation(user.id, deleted, "back").await.unwrap().is_none());
    assert_eq!(store.purge_conversations(3).await.unwrap(), 3);
    // Whoever comes next, after a restart too, goes on where the last one stopped.
    let restarted = crate::fixture::open(&store.url).await;
    let mut batches = Vec::new();
    loop {
        match restarted.purge_conversations(3).await.unwrap() {
            0 => break,
            removed => batches.push(removed),
        }
    }
    assert_eq!(batches, [3, 2], "seven messages in threes, and the conversation with the last");
    assert_eq!((store.count("messages").await, store.count("conversations").await), (1, 1), "only what was kept");
    assert_eq!(store.list_conversations(user.id, &PageRequest::first(5)).await.unwrap().items[0].message_count, 1);
}

async fn renaming_moves_only_an_empty_conversation(store: &Fixture) {
    let user = store.student("ada").await;
    let talked = store.conversation(user.id, "talked").await;
    let message = store.say(user.id, talked, "hello").await;
    let empty = store.conversation(user.id, "empty").await;
    let renamed = store.rename_conversation(user.id, talked, "renamed").await.unwrap().unwrap();
    assert_eq!(renamed.last_message_at, message.created_at);
    assert!(renamed.updated_at > message.created_at);
    let renamed = store.rename_conversation(user.id, empty, "renamed").await.unwrap().unwrap();
    assert_eq!(renamed.last_message_at, renamed.updated_at);
}

async fn an_exercise_must_exist(store: &Fixture) {
    let user = store.student("ada").await;
    let new = NewConversation {
        user_id: user.id,
        title: "about an exercise".to_owned(),
        context_type: ContextType::Exercise,
        exercise_id: Some(1),
    };
    assert!(store.create_conversation(new.clone()).await.unwrap().is_none());
    store.seed(&crate::seed::plan(1, 0, 0, 1), &|_| {}).await.unwrap();
    let created = store.create_conversation(new).await.unwrap().unwrap();
    assert_eq!((created.context_type, created.exercise_id), (ContextType::Exercise, Some(1)));
}

async fn the_naive_list_is_the_same_at_a_higher_price(store: &Fixture) {
    let user = store.student("ada").await;
    for title in ["first", "second", "third"] {
        let id = store.conversation(user.id, title).await;
        store.say(user.id, id, "why?").await;
        store.say(user.id, id, title).await;
    }
    store.conversation(user.id, "empty").await;
    let good = store.list_conversations(user.id, &PageRequest::first(10)).await.unwrap();
    let (naive, issued) = fixture::count(store.naive_conversations(user.id, 10)).await;
    assert_eq!((naive.unwrap(), issued), (good.items.clone(), 1 + 2 * 4));
    assert_eq!(store.naive_conversations(user.id, 2).await.unwrap().len(), 2);
}
