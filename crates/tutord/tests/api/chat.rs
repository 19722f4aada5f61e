use reqwest::Method;
use serde_json::{Value, json};
use testbed::model::Behaviour;
use tokio::sync::oneshot;
use tutord::chat::{LIST_BUDGET, PAGE_BUDGET};

use crate::support::checks::assert_rejects_invalid_pages;
use crate::support::fixtures::{Conversation, UNKNOWN_ID, grade_reply};
use crate::support::wait::wait_for_count;
use crate::support::{TestApp, fetch};

crate::on_both!(
    a_message_and_its_reply_are_stored,
    a_second_message_continues_the_conversation,
    the_list_has_pages_by_offset_and_cursor,
    a_cursor_of_another_student_leads_into_the_own_list,
    a_conversation_has_pages_by_offset_and_cursor,
    the_lists_stay_within_their_statement_budget(without_cache()),
    a_new_conversation_has_a_title_and_no_messages,
    an_invalid_conversation_names_the_field,
    a_conversation_can_be_renamed,
    a_deleted_conversation_is_hidden_at_once,
    a_conversation_of_another_student_looks_unknown,
    an_invalid_message_names_the_field_and_its_bound,
    a_message_of_the_maximum_length_is_stored,
    a_failure_of_the_model_loses_no_message(llm_timeout_seconds(1)),
    a_nul_in_a_reply_becomes_a_replacement_character,
    a_retry_answers_the_newest_message_once,
    a_retry_without_a_message_is_a_conflict,
    an_idempotency_key_belongs_to_one_message,
    a_reply_is_stored_after_its_client_disconnects,
    a_repeated_request_gets_the_stored_reply,
    a_message_is_stored_without_a_model(without_model()),
    the_prompt_has_the_profile_of_the_student(llm_context_tokens(400)),
    the_prompt_has_a_bounded_history(llm_context_tokens(400)),
    the_prompt_has_the_strengths_of_the_student,
    the_purge_deletes_the_rows_of_a_deleted_conversation,
);

async fn a_message_and_its_reply_are_stored(app: &TestApp) {
    let ada = app.student("ada").await;
    let code = "  Why does this fail?\n\n<script>if (a < b) { }</script> 日本\t\"quoted\" ";
    let sent = ada.send_message(json!({"message": code})).await.assert_ok();
    insta::assert_json_snapshot!("sent", sent.body, {
        ".conversation_id" => "[id]", ".message_id" => "[id]", ".user_message_id" => "[id]",
    });
    let page = ada.get(&Conversation::of(&sent.body).path()).await.assert_ok().body;
    assert_eq!(page["messages"][0]["content"], code.trim(), "stored as written");
    assert_eq!(page["messages"][0]["id"], sent.body["user_message_id"]);
    assert_eq!(page["messages"][1]["id"], sent.body["message_id"]);
    insta::assert_json_snapshot!("conversation_page", page, {
        ".conversation.id" => "[id]", ".messages[].id" => "[id]", ".messages[].metadata.response_time_ms" => "[ms]",
        ".**.created_at" => "[time]", ".**.updated_at" => "[time]",
    });
    let list = ada.get("/api/chat/conversations").await.assert_ok().body;
    insta::assert_json_snapshot!("conversation_list", list, {
        ".conversations[].id" => "[id]", ".**.created_at" => "[time]", ".**.updated_at" => "[time]",
        ".**.last_message_at" => "[time]",
    });
}

async fn a_second_message_continues_the_conversation(app: &TestApp) {
    let ada = app.student("ada").await;
    let conversation = ada.start_conversation("why?").await;
    let second = ada.send_message_in(conversation, "and now?").await.assert_ok();
    assert_eq!(second.body["conversation_id"], conversation.id);
    let page = ada.get(&conversation.path()).await.assert_ok().body;
    assert_eq!(page["conversation"]["message_count"], 4);
}

fn titles(page: &Value) -> Vec<String> {
    let conversations = page["conversations"].as_array().unwrap();
    conversations.iter().map(|conversation| conversation["title"].as_str().unwrap().to_owned()).collect()
}

async fn the_list_has_pages_by_offset_and_cursor(app: &TestApp) {
    let ada = app.student("ada").await;
    for number in 0..5 {
        ada.conversation().title(&number.to_string()).create().await;
    }
    let path = "/api/chat/conversations";
    assert_rejects_invalid_pages(&ada, path, 100).await;
    let first = ada.get(&format!("{path}?limit=2")).await.assert_ok().body;
    assert_eq!(titles(&first), ["4", "3"]);
    assert_eq!((&first["total"], &first["limit"], &first["offset"]), (&json!(5), &json!(2), &json!(0)));
    let cursor = first["next_cursor"].as_str().unwrap();
    let by_cursor = ada.get(&format!("{path}?limit=2&cursor={cursor}")).await.assert_ok().body;
    let by_offset = ada.get(&format!("{path}?limit=2&offset=2")).await.assert_ok().body;
    assert_eq!(titles(&by_cursor), ["2", "1"]);
    assert_eq!(by_cursor["conversations"], by_offset["conversations"]);
    let cursor = by_cursor["next_cursor"].as_str().unwrap();
    let last = ada.get(&format!("{path}?limit=2&cursor={cursor}")).await.assert_ok().body;
    assert_eq!(titles(&last), ["0"]);
    assert_eq!((&last["has_more"], &last["next_cursor"]), (&json!(false), &Value::Null));
    let beyond = ada.get(&format!("{path}?limit=2&offset=5")).await.assert_ok().body;
    assert_eq!((titles(&beyond).len(), &beyond["has_more"]), (0, &json!(false)));
    ada.get(&format!("{path}?cursor={cursor}&offset=0")).await.assert_invalid_field("cursor");
    assert_eq!(ada.get(path).await.assert_ok().body["limit"], 20, "the default");
}

/// A cursor contains a position and no user.
async fn a_cursor_of_another_student_leads_into_the_own_list(app: &TestApp) {
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    for title in ["first", "second"] {
        ada.conversation().title(title).create().await;
    }
    let path = "/api/chat/conversations";
    let first = ada.get(&format!("{path}?limit=1")).await.assert_ok().body;
    let cursor = first["next_cursor"].as_str().unwrap();
    let stolen = eve.get(&format!("{path}?cursor={cursor}")).await.assert_ok().body;
    assert_eq!((&stolen["total"], titles(&stolen).len()), (&json!(0), 0));
}

fn contents(page: &Value) -> Vec<i64> {
    let messages = page["messages"].as_array().unwrap();
    messages.iter().map(|message| message["content"].as_str().unwrap().parse().unwrap()).collect()
}

async fn a_conversation_has_pages_by_offset_and_cursor(app: &TestApp) {
    let ada = app.student("ada").await;
    let conversation = ada.conversation().create().await;
    let path = conversation.path();
    for number in 1..=4 {
        app.model.next(Behaviour::Say((number * 2).to_string()));
        ada.send_message_in(conversation, &(number * 2 - 1).to_string()).await.assert_ok();
    }
    assert_rejects_invalid_pages(&ada, &path, 200).await;
    let get = async |query: &str| ada.get(&format!("{path}?{query}")).await.assert_ok().body;
    let first = get("limit=3").await;
    assert_eq!(contents(&first), [1, 2, 3]);
    let pagination = &first["pagination"];
    assert_eq!(
        (&pagination["total"], &pagination["has_more"], &pagination["prev_cursor"]),
        (&json!(8), &json!(true), &Value::Null)
    );
    let next = pagination["next_cursor"].as_str().unwrap().to_owned();
    let second = get(&format!("limit=3&cursor={next}")).await;
    assert_eq!(contents(&second), [4, 5, 6]);
    assert_eq!(get("limit=3&offset=3").await["messages"], second["messages"]);
    let previous = second["pagination"]["prev_cursor"].as_str().unwrap();
    assert_eq!(get(&format!("limit=3&cursor={previous}")).await["messages"], first["messages"]);
    assert_eq!(contents(&get("limit=3&order=desc").await), [8, 7, 6]);
    assert_eq!(contents(&get("limit=3&order=desc&offset=6").await), [2, 1]);
    let last = get("limit=3&offset=6").await;
    assert_eq!((contents(&last), &last["pagination"]["has_more"]), (vec![7, 8], &json!(false)));
    ada.get(&format!("{path}?cursor={next}&order=desc")).await.assert_invalid_field("cursor");
    ada.get(&format!("{path}?order=sideways")).await.assert_invalid_field("order");
    assert_eq!(get("").await["pagination"]["limit"], 50, "the default");
}

async fn the_lists_stay_within_their_statement_budget(app: &TestApp) {
    let ada = app.student("ada").await;
    let conversation = ada.start_conversation("hello").await;
    for size in [20, 200] {
        for number in 0..size {
            ada.store_message(conversation, number.to_string()).await;
            ada.conversation().create().await;
        }
        let limit = size.min(100);
        let list = ada.get(&format!("/api/chat/conversations?limit={limit}")).await.assert_ok();
        assert_eq!(
            (list.body["conversations"].as_array().unwrap().len(), list.statement_count()),
            (limit, LIST_BUDGET - 1)
        );
        let page = ada.get(&format!("{}?limit={size}", conversation.path())).await.assert_ok();
        assert_eq!((page.body["messages"].as_array().unwrap().len(), page.statement_count()), (size, PAGE_BUDGET));
    }
}

async fn a_new_conversation_has_a_title_and_no_messages(app: &TestApp) {
    let ada = app.student("ada").await;
    let created = ada.post("/api/chat/conversations", json!({"title": " My title "})).await.assert_status(201).body;
    let created = &created["conversation"];
    assert_eq!(
        (&created["title"], &created["context_type"], &created["message_count"]),
        (&json!("My title"), &json!("general"), &json!(0))
    );
    assert_eq!(created["last_message_at"], created["updated_at"]);
}

async fn an_invalid_conversation_names_the_field(app: &TestApp) {
    let ada = app.student("ada").await;
    let create = async |body: Value| ada.post("/api/chat/conversations", body).await;
    create(json!({"title": ""})).await.assert_invalid_field("title");
    create(json!({"title": "x".repeat(201)})).await.assert_invalid_field("title");
    create(json!({"context_type": "other"})).await.assert_invalid_field("context_type");
    create(json!({"context_type": "exercise"})).await.assert_invalid_field("exercise_id");
    create(json!({"context_type": "general", "exercise_id": UNKNOWN_ID})).await.assert_invalid_field("exercise_id");
    create(json!({"exercise_id": 0})).await.assert_invalid_field("exercise_id");
    create(json!({"context_type": "exercise", "exercise_id": UNKNOWN_ID})).await.assert_error(404, "NOT_FOUND");
}

async fn a_conversation_can_be_renamed(app: &TestApp) {
    let ada = app.student("ada").await;
    let path = ada.conversation().create().await.path();
    let renamed = ada.patch(&path, json!({"title": "Renamed"})).await.assert_ok().body;
    assert_eq!(renamed["conversation"]["title"], "Renamed");
    ada.patch(&path, json!({"title": "x".repeat(201)})).await.assert_invalid_field("title");
    ada.patch(&path, json!({})).await.assert_invalid_field("title");
}

async fn a_deleted_conversation_is_hidden_at_once(app: &TestApp) {
    let ada = app.student("ada").await;
    let conversation = ada.conversation().create().await;
    let path = conversation.path();
    let deleted = ada.delete(&path).await.assert_ok().body;
    assert_eq!(deleted["conversation_id"], conversation.id);
    for method in [Method::DELETE, Method::GET] {
        fetch(ada.request(method, &path)).await.assert_error(404, "NOT_FOUND");
    }
    ada.patch(&path, json!({"title": "x"})).await.assert_error(404, "NOT_FOUND");
    assert_eq!(ada.get("/api/chat/conversations").await.assert_ok().body["total"], 0);
}

async fn a_conversation_of_another_student_looks_unknown(app: &TestApp) {
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    let conversation = ada.start_conversation("my secret").await;
    let (id, path) = (conversation.id, conversation.path());
    let unknown = eve.get(&format!("/api/chat/conversations/{UNKNOWN_ID}")).await.body;
    for response in [
        eve.get(&path).await,
        eve.patch(&path, json!({"title": "mine"})).await,
        eve.delete(&path).await,
        eve.post(&conversation.retry_path(), json!({})).await,
        eve.send_message(json!({"message": "hi", "conversation_id": id})).await,
        eve.post("/api/chat/stream", json!({"message": "hi", "conversation_id": id})).await,
    ] {
        response.assert_error(404, "NOT_FOUND");
        assert_eq!(response.body, unknown, "like one that does not exist");
    }
    assert_eq!(ada.get(&path).await.assert_ok().body["conversation"]["message_count"], 2);
    assert_eq!(app.model.received().len(), 1, "one request to the model, for the owner");
}

async fn an_invalid_message_names_the_field_and_its_bound(app: &TestApp) {
    let ada = app.student("ada").await;
    for path in ["/api/chat/message", "/api/chat/stream"] {
        let send = async |body: Value| ada.post(path, body).await;
        assert_eq!(
            send(json!({"message": " \n "})).await.assert_invalid_field("message"),
            "message must have at least 1 character"
        );
        let long = "é".repeat(5001);
        assert_eq!(
            send(json!({"message": long})).await.assert_invalid_field("message"),
            "message must have at most 5000 characters"
        );
        send(json!({})).await.assert_invalid_field("message");
        send(json!({"message": 5})).await.assert_invalid_field("message");
        send(json!({"message": "x", "conversation_id": 0})).await.assert_invalid_field("conversation_id");
        send(json!({"message": "x", "conversation_id": "1"})).await.assert_invalid_field("conversation_id");
        send(json!({"message": "x", "idempotency_key": "k".repeat(65)})).await.assert_invalid_field("idempotency_key");
    }
    assert_eq!(ada.get("/api/chat/conversations").await.assert_ok().body["total"], 0);
}

async fn a_message_of_the_maximum_length_is_stored(app: &TestApp) {
    let ada = app.student("ada").await;
    ada.send_message(json!({"message": "é".repeat(5000)})).await.assert_ok();
}

async fn a_failure_of_the_model_loses_no_message(app: &TestApp) {
    let ada = app.student("ada").await;
    for behaviour in [
        Behaviour::Fail(500, None),
        Behaviour::Fail(429, Some("7")),
        Behaviour::Fail(401, None),
        Behaviour::Garbage,
        Behaviour::Hang,
    ] {
        let retry_after = if matches!(behaviour, Behaviour::Fail(429, _)) { "7" } else { "10" };
        app.model.next(behaviour);
        let failed = ada.send_message(json!({"message": "keep me"})).await;
        failed.assert_error(503, "LLM_UNAVAILABLE");
        assert_eq!(failed.headers["retry-after"], retry_after);
        let details = &failed.body["error"]["details"];
        let page = ada.get(&Conversation::of(details).path()).await.assert_ok().body;
        assert_eq!(page["messages"].as_array().unwrap().len(), 1);
        assert_eq!(page["messages"][0]["id"], details["user_message_id"]);
    }
}

async fn a_nul_in_a_reply_becomes_a_replacement_character(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Say("a\0b".to_owned()));
    let sent = ada.send_message(json!({"message": "hello"})).await.assert_ok().body;
    assert_eq!(sent["response"], "a\u{fffd}b");
}

async fn a_retry_answers_the_newest_message_once(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Fail(500, None));
    let failed = ada.send_message(json!({"message": "why?"})).await;
    let details = failed.body["error"]["details"].clone();
    let retry = Conversation::of(&details).retry_path();
    app.model.next(Behaviour::Fail(503, None));
    ada.post(&retry, json!({})).await.assert_error(503, "LLM_UNAVAILABLE");
    let answered = ada.post(&retry, json!({})).await.assert_ok().body;
    assert_eq!(answered["user_message_id"], details["user_message_id"]);
    assert_eq!(answered["response"], "You said: why?");
    // A client that lost the response gets the same reply.
    let again = ada.post(&retry, json!({})).await.assert_ok().body;
    assert_eq!(again, answered);
}

async fn a_retry_without_a_message_is_a_conflict(app: &TestApp) {
    let ada = app.student("ada").await;
    let empty = ada.conversation().create().await;
    ada.post(&empty.retry_path(), json!({})).await.assert_error(409, "CONFLICT");
}

async fn an_idempotency_key_belongs_to_one_message(app: &TestApp) {
    let ada = app.student("ada").await;
    let elsewhere = ada.start_conversation("another conversation").await.id;
    let send = async |mut body: Value| {
        body["idempotency_key"] = "key".into();
        ada.send_message(body).await
    };
    let first = send(json!({"message": "why?"})).await.assert_ok().body;
    let conversation = &first["conversation_id"];
    for same in [json!({"message": " why? "}), json!({"message": "why?", "conversation_id": conversation})] {
        assert_eq!(send(same).await.assert_ok().body, first);
    }
    for other in [json!({"message": "how?"}), json!({"message": "why?", "conversation_id": elsewhere})] {
        let rejected = send(other.clone()).await;
        rejected.assert_error(422, "VALIDATION_ERROR");
        assert_eq!(rejected.body["error"]["details"]["field"], "idempotency_key", "{other}");
        let mut streamed = other;
        streamed["idempotency_key"] = "key".into();
        ada.post("/api/chat/stream", streamed).await.assert_error(422, "VALIDATION_ERROR");
    }
    let second = json!({"message": "and then?", "conversation_id": conversation, "idempotency_key": "second"});
    ada.send_message(second.clone()).await.assert_ok();
    let unnamed = json!({"message": "and then?", "idempotency_key": "second"});
    ada.send_message(unnamed).await.assert_error(422, "VALIDATION_ERROR");
    ada.send_message(second).await.assert_ok();
}

async fn a_reply_is_stored_after_its_client_disconnects(app: &TestApp) {
    let ada = app.student("ada").await;
    let (release, released) = oneshot::channel();
    app.model.next(Behaviour::SayLater("at last".to_owned(), released));
    let request = app.request(Method::POST, "/api/chat/message").bearer_auth(&ada.token);
    let request = request.json(&json!({"message": "hello", "idempotency_key": "key"})).send();
    let call = tokio::spawn(request);
    app.model.until_arrived(1).await;
    call.abort();
    let _ = call.await;
    release.send(()).unwrap();
    // The same key would start a second request to the model before the reply is stored.
    loop {
        let list = ada.get("/api/chat/conversations").await.assert_ok().body;
        if list["conversations"][0]["last_message_preview"] == "at last" {
            break;
        }
        tokio::task::yield_now().await;
    }
    let again = ada.send_message(json!({"message": "hello", "idempotency_key": "key"})).await.assert_ok().body;
    assert_eq!(again["response"], "at last");
    assert_eq!(app.model.received().len(), 1);
}

async fn a_repeated_request_gets_the_stored_reply(app: &TestApp) {
    let ada = app.student("ada").await;
    let body = json!({"message": "why?", "idempotency_key": "k1"});
    app.model.next(Behaviour::Fail(500, None));
    let failed = ada.send_message(body.clone()).await;
    failed.assert_error(503, "LLM_UNAVAILABLE");
    let first = ada.send_message(body.clone()).await.assert_ok().body;
    assert_eq!(first["user_message_id"], failed.body["error"]["details"]["user_message_id"]);
    let again = ada.send_message(body).await.assert_ok().body;
    assert_eq!(first, again);
    assert_eq!(app.model.received().len(), 2);
    assert_eq!(ada.get("/api/chat/conversations").await.assert_ok().body["conversations"][0]["message_count"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_answer_one_message_store_one_reply() {
    let app = TestApp::postgres().start().await;
    let ada = app.student("ada").await;
    let body = json!({"message": "why?", "idempotency_key": "k1"});
    let (release, released) = oneshot::channel();
    app.model.next(Behaviour::SayLater("too late".to_owned(), released));
    let first = tokio::spawn(fetch(ada.request(Method::POST, "/api/chat/message").json(&body)));
    app.model.until_arrived(1).await;
    let other = app.sibling().start().await;
    let again = ada.on_node(&other).send_message(body).await.assert_ok().body;
    release.send(()).unwrap();
    assert_eq!(first.await.unwrap().assert_ok().body, again);
    assert_eq!(again["response"], "You said: why?");
    let page = ada.get(&Conversation::of(&again).path()).await.assert_ok().body;
    assert_eq!(page["conversation"]["message_count"], 2);
}

async fn a_message_is_stored_without_a_model(app: &TestApp) {
    let ada = app.student("ada").await;
    for path in ["/api/chat/message", "/api/chat/stream"] {
        let failed = ada.post(path, json!({"message": "hello"})).await;
        failed.assert_error(503, "LLM_NOT_CONFIGURED");
        let details = &failed.body["error"]["details"];
        assert_eq!(
            ada.get(&Conversation::of(details).path()).await.assert_ok().body["messages"][0]["id"],
            details["user_message_id"]
        );
    }
}

async fn the_prompt_has_the_profile_of_the_student(app: &TestApp) {
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    ada.complete_onboarding("Write a compiler").await;
    bob.complete_onboarding("Bob's secret goal").await;
    bob.start_conversation("Bob's secret question").await;
    ada.start_conversation("first").await;
    let received = app.model.received();
    let prompt = received.last().unwrap().body["messages"].as_array().unwrap().clone();
    assert_eq!(prompt[0]["role"], "system");
    let system = prompt[0]["content"].as_str().unwrap();
    assert!(system.contains("Write a compiler") && system.contains("advanced"));
    assert!(!received.last().unwrap().body.to_string().contains("Bob"));
}

async fn the_prompt_has_a_bounded_history(app: &TestApp) {
    let ada = app.student("ada").await;
    let conversation = ada.start_conversation("first").await;
    for number in 0..4 {
        ada.send_message_in(conversation, &format!("{number} {}", "x".repeat(300))).await.assert_ok();
    }
    let received = app.model.received();
    let prompt = received.last().unwrap().body["messages"].as_array().unwrap().clone();
    assert!(prompt.last().unwrap()["content"].as_str().unwrap().starts_with("3 "));
    let roles: Vec<&str> = prompt[1..].iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert!(prompt.len() < 10, "the oldest of ten messages were left out: {roles:?}");
}

async fn the_prompt_has_the_strengths_of_the_student(app: &TestApp) {
    let exercise_id = app.load_catalogue().await[0];
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    app.model.next(grade_reply(100));
    let exercise = ada.exercise(exercise_id).await;
    ada.submit_solution(exercise_id, json!({"solution": "x"})).await.assert_ok();
    for client in [&ada, &bob] {
        client.start_conversation("What next?").await;
    }
    let received = app.model.received();
    let [of_ada, of_bob] = [1, 2].map(|index| received[index].body["messages"][0]["content"].as_str().unwrap());
    let topic = exercise["topics"].as_str().unwrap().split(',').next().unwrap();
    let strengths = of_ada.lines().find(|line| line.starts_with("- strengths: ")).unwrap();
    assert!(strengths.contains(topic), "{strengths}");
    assert!(!of_bob.contains("strengths"), "{of_bob}");
}

async fn the_purge_deletes_the_rows_of_a_deleted_conversation(app: &TestApp) {
    let ada = app.student("ada").await;
    let conversation = ada.start_conversation("hello").await;
    ada.delete(&conversation.path()).await.assert_ok();
    let rows = "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM conversations)";
    wait_for_count(app, rows, 0).await;
}
