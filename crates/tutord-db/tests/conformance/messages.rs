use tutord_core::model::{AppendOutcome, Message, MessageRole, MessageTarget, NewReply, NewUserMessage, Order};
use tutord_core::{Error, Page, PageRequest, Position};

use crate::fixture::{self, Fixture, message, reply, stored};

crate::on_both!(
    pages_walk_a_conversation_once_in_both_orders_and_directions,
    first_pages_after_a_message_follow_from_those_before,
    a_page_costs_two_statements_at_any_depth,
    concurrent_messages_are_counted_exactly,
    a_message_can_begin_a_conversation,
    a_repeated_request_stores_nothing_again,
    concurrent_repeats_store_one_message,
    a_message_is_answered_once,
    a_reply_that_broke_off_is_replaced_by_a_better_one,
    of_concurrent_replies_one_is_stored,
    others_conversations_do_not_exist,
    history_is_bounded,
    the_last_exchange_tells_what_is_unanswered,
);

async fn page(store: &Fixture, user_id: i64, id: i64, order: Order, request: PageRequest) -> Page<Message> {
    store.conversation_page(user_id, id, order, &request).await.unwrap().unwrap().messages.clone()
}

fn positions(page: &Page<Message>) -> Vec<i64> {
    page.items.iter().map(|message| message.position).collect()
}

async fn pages_walk_a_conversation_once_in_both_orders_and_directions(store: &Fixture) {
    let user = store.student("ada").await;
    for size in 0..=7_i64 {
        let id = store.conversation(user.id, "talk").await;
        for number in 1..=size {
            store.say(user.id, id, &number.to_string()).await;
        }
        for (order, expected) in
            [(Order::Asc, (1..=size).collect::<Vec<_>>()), (Order::Desc, (1..=size).rev().collect())]
        {
            for limit in 1..=8 {
                let context = format!("size {size}, limit {limit}, {order:?}");
                let mut forward = Vec::new();
                let mut pages = Vec::new();
                let mut request = PageRequest::first(limit);
                loop {
                    let page = page(store, user.id, id, order, request).await;
                    forward.extend(positions(&page));
                    assert_eq!(page.total, size, "{context}");
                    assert_eq!(page.has_more, (forward.len() as i64) < size, "{context}");
                    assert_eq!(page.previous.is_some(), forward.len() > page.items.len(), "{context}");
                    pages.push(page.clone());
                    let Some(next) = page.next else { break };
                    request = PageRequest { limit, position: Position::Cursor(next) };
                }
                assert_eq!(forward, expected, "{context}");
                // Back from the last page, each page before it is the one that was walked.
                while let [.., before, last] = pages.as_slice() {
                    let previous = Position::Cursor(last.previous.unwrap());
                    let again = page(store, user.id, id, order, PageRequest { limit, position: previous }).await;
                    assert_eq!(&again, before, "{context}");
                    pages.pop();
                }
                for offset in 0..size + 2 {
                    let request = PageRequest { limit, position: Position::Offset(offset) };
                    let page = page(store, user.id, id, order, request).await;
                    let slice: Vec<i64> = expected.iter().copied().skip(offset as usize).take(limit as usize).collect();
                    assert_eq!(positions(&page), slice, "{context}, offset {offset}");
                    assert_eq!(page.has_more, !slice.is_empty() && offset + limit < size, "{context}, offset {offset}");
                }
            }
        }
    }
}

async fn first_pages_after_a_message_follow_from_those_before(store: &Fixture) {
    let user = store.student("ada").await.id;
    for number in 1..=5 {
        store.conversation(user, &number.to_string()).await;
    }
    let limits = [1, 3, 20];
    let list = async |limit| store.list_conversations(user, &PageRequest::first(limit)).await.unwrap();
    let page =
        async |id, order, limit| store.conversation_page(user, id, order, &PageRequest::first(limit)).await.unwrap();
    // The first of three messages of each round begins a conversation, or goes to one that is on a list's first page or not.
    for round in 1..=12 {
        let begun = round % 4 == 0;
        let target =
            if begun { MessageTarget::New { title: "new".to_owned() } } else { MessageTarget::Existing(1 + round % 5) };
        let mut question = None;
        for number in 0..3 {
            let id = match (&question, &target) {
                (Some(Message { conversation_id, .. }), _) => *conversation_id,
                (None, MessageTarget::Existing(id)) => *id,
                (None, MessageTarget::New { .. }) => 0,
            };
            let mut before = Vec::new();
            for limit in limits {
                let pages = [page(id, Order::Asc, limit).await, page(id, Order::Desc, limit).await];
                before.push((limit, list(limit).await, pages));
            }
            let stored = match (&question, number) {
                (Some(question), 1) => store.append_reply(reply(user, question, "yes")).await.unwrap().unwrap(),
                _ => {
                    let target = if number == 0 { target.clone() } else { MessageTarget::Existing(id) };
                    let appended = store.append_user_message(message(user, target, "why?")).await.unwrap();
                    let AppendOutcome::Stored(stored, _) = appended else { panic!("{appended:?}") };
                    stored
                }
            };
            let id = stored.conversation.id;
            for (limit, known, pages) in before {
                let context = format!("round {round}, message {number}, limit {limit}");
                let found = list(limit).await;
                let after = known.after(&stored.conversation, begun && number == 0, limit);
                assert_eq!(after.as_ref(), Some(&*found), "{context}");
                assert_eq!(found.after(&stored.conversation, false, limit), None, "it is there already: {context}");
                for (known, order) in pages.into_iter().zip([Order::Asc, Order::Desc]) {
                    let found = page(id, order, limit).await.unwrap();
                    if let Some(known) = known {
                        assert_eq!(known.after(&stored, order, limit).as_ref(), Some(&*found), "{context}, {order:?}");
                    }
                    assert_eq!(found.after(&stored, order, limit), None, "it is there already: {context}");
                }
            }
            question = question.or(Some(stored.message));
        }
    }
}

async fn a_page_costs_two_statements_at_any_depth(store: &Fixture) {
    let user = store.student("ada").await;
    let id = store.conversation(user.id, "talk").await;
    for number in 0..220 {
        store.say(user.id, id, &number.to_string()).await;
    }
    for (limit, offset) in [(20, 0), (200, 0), (200, 20), (20, 200)] {
        for order in [Order::Asc, Order::Desc] {
            let request = PageRequest { limit, position: Position::Offset(offset) };
            let (page, issued) = fixture::count(page(store, user.id, id, order, request)).await;
            assert_eq!((page.items.len() as i64, issued), (limit, 2));
        }
    }
}

async fn concurrent_messages_are_counted_exactly(store: &Fixture) {
    const TASKS: i64 = 50;
    let user = store.student("ada").await;
    let id = store.conversation(user.id, "talk").await;
    let tasks = (0..TASKS).map(|number| {
        let store = store.store.clone();
        let new = message(user.id, MessageTarget::Existing(id), &number.to_string());
        tokio::spawn(async move { store.append_user_message(new).await.unwrap() })
    });
    for task in tasks.collect::<Vec<_>>() {
        stored(task.await.unwrap());
    }
    let found = store.conversation_page(user.id, id, Order::Asc, &PageRequest::first(200)).await.unwrap().unwrap();
    assert_eq!(found.conversation.message_count, TASKS);
    assert_eq!(positions(&found.messages), (1..=TASKS).collect::<Vec<_>>());
    assert!(found.messages.items.is_sorted_by_key(|message| message.created_at), "times follow positions");
    let last = found.messages.items.last().unwrap();
    assert_eq!(found.conversation.last_message_at, last.created_at);
    assert_eq!(found.conversation.last_message_preview.as_deref(), Some(last.content.as_str()));
}

async fn a_message_can_begin_a_conversation(store: &Fixture) {
    let user = store.student("ada").await;
    let target = MessageTarget::New { title: "Why?".to_owned() };
    let first = stored(store.append_user_message(message(user.id, target, "Why?")).await.unwrap());
    assert_eq!((first.position, first.role, first.reply_to), (1, MessageRole::User, None));
    let list = store.list_conversations(user.id, &PageRequest::first(5)).await.unwrap();
    assert_eq!((list.items[0].id, list.items[0].title.as_str()), (first.conversation_id, "Why?"));
}

async fn a_repeated_request_stores_nothing_again(store: &Fixture) {
    let (ada, bob) = (store.student("ada").await, store.student("bob").await);
    let keyed = |user_id| {
        let mut new = message(user_id, MessageTarget::New { title: "t".to_owned() }, "hello");
        new.idempotency_key = Some("key-1".to_owned());
        new
    };
    let first = stored(store.append_user_message(keyed(ada.id)).await.unwrap());
    let AppendOutcome::Repeated(again) = store.append_user_message(keyed(ada.id)).await.unwrap() else { panic!() };
    assert_eq!((again.question, again.reply), (first.clone(), None));
    let answer = store.append_reply(reply(ada.id, &first, "hi")).await.unwrap().unwrap().message;
    let AppendOutcome::Repeated(again) = store.append_user_message(keyed(ada.id)).await.unwrap() else { panic!() };
    assert_eq!(again.reply, Some(answer));
    stored(store.append_user_message(keyed(bob.id)).await.unwrap());
    assert_eq!(store.list_conversations(ada.id, &PageRequest::first(5)).await.unwrap().total, 1);
    store.delete_conversation(ada.id, first.conversation_id).await.unwrap();
    assert_eq!(store.append_user_message(keyed(ada.id)).await.unwrap(), AppendOutcome::NotFound);
}

async fn concurrent_repeats_store_one_message(store: &Fixture) {
    let user = store.student("ada").await;
    let tasks = (0..8).map(|_| {
        let store = store.store.clone();
        let mut new = message(user.id, MessageTarget::New { title: "t".to_owned() }, "hello");
        new.idempotency_key = Some("key-1".to_owned());
        tokio::spawn(async move { store.append_user_message(new).await.unwrap() })
    });
    let mut ids = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        ids.push(match task.await.unwrap() {
            AppendOutcome::Stored(stored, _) => stored.message.id,
            AppendOutcome::Repeated(exchange) => exchange.question.id,
            AppendOutcome::NotFound => panic!("not found"),
        });
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(store.list_conversations(user.id, &PageRequest::first(5)).await.unwrap().total, 1);
}

async fn a_message_is_answered_once(store: &Fixture) {
    let user = store.student("ada").await;
    let id = store.conversation(user.id, "talk").await;
    let question = store.say(user.id, id, "why?").await;
    let answer = store.append_reply(reply(user.id, &question, "because")).await.unwrap().unwrap().message;
    assert_eq!((answer.role, answer.reply_to, answer.position), (MessageRole::Assistant, Some(question.id), 2));
    assert_eq!((answer.tokens_used, answer.model_used.as_deref()), (Some(7), Some("model")));
    let second = store.append_reply(reply(user.id, &question, "again")).await;
    assert!(matches!(second, Err(Error::Conflict(_))), "{second:?}");
    let found = store.conversation_page(user.id, id, Order::Asc, &PageRequest::first(9)).await.unwrap().unwrap();
    assert_eq!((found.conversation.message_count, found.messages.items.len()), (2, 2), "the refused one left no trace");
    assert_eq!(found.conversation.last_message_preview.as_deref(), Some("because"));
    store.delete_conversation(user.id, id).await.unwrap();
    let question = Message { id: question.id + 100, ..question };
    assert!(store.append_reply(reply(user.id, &question, "late")).await.unwrap().is_none(), "deleted meanwhile");
}

async fn a_reply_that_broke_off_is_replaced_by_a_better_one(store: &Fixture) {
    let (ada, eve) = (store.student("ada").await, store.student("eve").await);
    let id = store.conversation(ada.id, "talk").await;
    let question = store.say(ada.id, id, "why?").await;
    let of = |user: i64, text: &str, reason: &str| NewReply {
        finish_reason: reason.to_owned(),
        ..reply(user, &question, text)
    };
    let replace = async |new: NewReply| store.replace_reply(new).await.unwrap();
    assert_eq!(replace(of(ada.id, "because", "stop")).await, None, "there is nothing to replace");
    let first = store.append_reply(of(ada.id, "be", "interrupted")).await.unwrap().unwrap();
    assert_eq!(replace(of(ada.id, "b", "error")).await, None, "a shorter piece");
    assert_eq!(replace(of(eve.id, "because", "stop")).await, None, "another student's");
    let longer = replace(of(ada.id, "beca", "error")).await.unwrap();
    assert_eq!((longer.message.id, longer.message.position), (first.message.id, 2));
    assert_eq!(longer.conversation.last_message_preview.as_deref(), Some("beca"));
    let later = store.say(ada.id, id, "and then?").await;
    let tasks = (0..8).map(|number| {
        let (store, new) = (store.store.clone(), of(ada.id, &number.to_string(), "stop"));
        tokio::spawn(async move { store.replace_reply(new).await.unwrap() })
    });
    let mut stored = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        stored.extend(task.await.unwrap());
    }
    assert_eq!(stored.len(), 1, "one of them replaces it");
    assert_eq!((stored[0].conversation.message_count, later.position), (3, 3));
    assert_eq!(stored[0].conversation.last_message_preview.as_deref(), Some("and then?"));
    let found = store.conversation_page(ada.id, id, Order::Asc, &PageRequest::first(9)).await.unwrap().unwrap();
    assert_eq!(found.messages.items[1], stored[0].message);
}

async fn of_concurrent_replies_one_is_stored(store: &Fixture) {
    let user = store.student("ada").await;
    let id = store.conversation(user.id, "talk").await;
    let question = store.say(user.id, id, "why?").await;
    let tasks = (0..8).map(|number| {
        let (store, new) = (store.store.clone(), reply(user.id, &question, &number.to_string()));
        tokio::spawn(async move { store.append_reply(new).await })
    });
    let mut answers = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Ok(answer) => answers.push(answer.unwrap().message),
            Err(Error::Conflict(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    let found = store.conversation_page(user.id, id, Order::Desc, &PageRequest::first(9)).await.unwrap().unwrap();
    assert_eq!(found.messages.items, [&answers[..], &[question]].concat());
    assert_eq!((answers.len(), found.conversation.message_count), (1, 2));
    assert_eq!(found.conversation.last_message_preview.as_ref(), Some(&answers[0].content));
}

async fn others_conversations_do_not_exist(store: &Fixture) {
    let (ada, eve) = (store.student("ada").await, store.student("eve").await);
    let id = store.conversation(ada.id, "secret").await;
    let question = store.say(ada.id, id, "secret").await;
    let appended = store.append_user_message(message(eve.id, MessageTarget::Existing(id), "hi")).await.unwrap();
    assert_eq!(appended, AppendOutcome::NotFound);
    assert!(store.append_reply(reply(eve.id, &question, "hi")).await.unwrap().is_none());
    assert!(store.conversation_page(eve.id, id, Order::Asc, &PageRequest::first(5)).await.unwrap().is_none());
    assert!(store.last_exchange(eve.id, id, 5).await.unwrap().is_none());
    let absent = store.append_user_message(message(ada.id, MessageTarget::Existing(id + 1), "hi")).await.unwrap();
    assert_eq!(absent, AppendOutcome::NotFound);
    let found = store.conversation_page(ada.id, id, Order::Asc, &PageRequest::first(5)).await.unwrap().unwrap();
    assert_eq!((found.conversation.message_count, &found.messages.items), (1, &vec![question]));
}

async fn history_is_bounded(store: &Fixture) {
    let user = store.student("ada").await;
    let id = store.conversation(user.id, "talk").await;
    let positions = |history: &[Message]| history.iter().map(|message| message.position).collect::<Vec<_>>();
    let new = |target, history| {
        let key = Some(format!("key-{history}"));
        NewUserMessage { history, idempotency_key: key, ..message(user.id, target, "next") }
    };
    for number in 1..=6 {
        store.say(user.id, id, &number.to_string()).await;
    }
    let seventh = new(MessageTarget::Existing(id), 3);
    let AppendOutcome::Stored(stored, history) = store.append_user_message(seventh.clone()).await.unwrap() else {
        panic!()
    };
    assert_eq!((stored.message.position, positions(&history)), (7, vec![7, 6, 5]));
    store.append_reply(reply(user.id, &stored.message, "so")).await.unwrap();
    let AppendOutcome::Repeated(again) = store.append_user_message(seventh).await.unwrap() else { panic!() };
    assert_eq!((again.question.position, positions(&again.history)), (7, vec![7, 6, 5]));
    let last = store.last_exchange(user.id, id, 2).await.unwrap().unwrap();
    assert_eq!(positions(&last.history), [7, 6]);
    let first = new(MessageTarget::New { title: "t".to_owned() }, 4);
    let AppendOutcome::Stored(_, history) = store.append_user_message(first).await.unwrap() else { panic!() };
    assert_eq!(positions(&history), [1]);
}

async fn the_last_exchange_tells_what_is_unanswered(store: &Fixture) {
    let user = store.student("ada").await;
    let id = store.conversation(user.id, "talk").await;
    assert!(store.last_exchange(user.id, id, 5).await.unwrap().is_none(), "no message yet");
    let first = store.say(user.id, id, "one").await;
    let answer = store.append_reply(reply(user.id, &first, "1")).await.unwrap().unwrap().message;
    let exchange = store.last_exchange(user.id, id, 5).await.unwrap().unwrap();
    assert_eq!((exchange.question, exchange.reply), (first, Some(answer)));
    let second = store.say(user.id, id, "two").await;
    let exchange = store.last_exchange(user.id, id, 5).await.unwrap().unwrap();
    assert_eq!((exchange.question, exchange.reply), (second, None));
}
