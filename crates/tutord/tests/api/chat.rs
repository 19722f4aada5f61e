use reqwest::Method;
use serde_json::{Value, json};
use testbed::model::Behaviour;
use tokio::sync::oneshot;
use tutord::chat::{LIST_BUDGET, PAGE_BUDGET};
use tutord_core::model::{LearningProfile, SkillLevel};

use crate::harness::{TestApp, answer, refuses_bad_pages};

crate::on_both!(
    a_message_is_answered_and_kept,
    the_list_is_paged_by_offset_and_cursor,
    a_conversation_is_paged_by_offset_and_cursor,
    lists_keep_their_statement_budget("--cache-enabled", "false"),
    conversations_are_begun_renamed_and_deleted,
    others_conversations_do_not_exist,
    bounds_of_a_message_are_named,
    a_failing_model_loses_no_message("--llm-timeout-seconds", "1"),
    a_reply_with_a_character_that_no_database_keeps_is_kept,
    retrying_answers_the_newest_message_once,
    a_key_belongs_to_one_message,
    a_client_that_gives_up_finds_the_reply_later,
    a_repeated_request_is_answered_from_the_store,
    without_a_model_messages_are_kept("--llm-model", "none", "--llm-base-url", "http://127.0.0.1:1"),
    the_model_sees_this_student_and_a_bounded_history("--llm-context-tokens", "400"),
    the_model_is_told_what_the_student_is_good_at,
    a_deleted_conversation_leaves_no_rows,
);

async fn a_message_is_answered_and_kept(app: &TestApp) {
    let ada = app.student("ada").await;
    let code = "  Why does this fail?\n\n<script>if (a < b) { }</script> 日本\t\"quoted\" ";
    let sent = ada.post("/api/chat/message", json!({"message": code})).await.ok();
    insta::assert_json_snapshot!("sent", sent.body, {
        ".conversation_id" => "[id]", ".message_id" => "[id]", ".user_message_id" => "[id]",
    });
    let id = sent.body["conversation_id"].as_i64().unwrap();
    let page = ada.get(&format!("/api/chat/conversations/{id}")).await.ok().body;
    assert_eq!(page["messages"][0]["content"], code.trim(), "stored as written");
    assert_eq!(page["messages"][0]["id"], sent.body["user_message_id"]);
    assert_eq!(page["messages"][1]["id"], sent.body["message_id"]);
    insta::assert_json_snapshot!("conversation_page", page, {
        ".conversation.id" => "[id]", ".messages[].id" => "[id]", ".messages[].metadata.response_time_ms" => "[ms]",
        ".**.created_at" => "[time]", ".**.updated_at" => "[time]",
    });
    let list = ada.get("/api/chat/conversations").await.ok().body;
    insta::assert_json_snapshot!("conversation_list", list, {
        ".conversations[].id" => "[id]", ".**.created_at" => "[time]", ".**.updated_at" => "[time]",
        ".**.last_message_at" => "[time]",
    });
    let again = ada.post("/api/chat/message", json!({"message": "and now?", "conversation_id": id})).await.ok();
    assert_eq!(again.body["conversation_id"], id);
    let page = ada.get(&format!("/api/chat/conversations/{id}")).await.ok().body;
    assert_eq!(page["conversation"]["message_count"], 4);
}

fn titles(page: &Value) -> Vec<String> {
    let conversations = page["conversations"].as_array().unwrap();
    conversations.iter().map(|conversation| conversation["title"].as_str().unwrap().to_owned()).collect()
}

async fn the_list_is_paged_by_offset_and_cursor(app: &TestApp) {
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    for number in 0..5 {
        ada.post("/api/chat/conversations", json!({"title": number.to_string()})).await.has(201);
    }
    let path = "/api/chat/conversations";
    refuses_bad_pages(&ada, path, 100).await;
    let first = ada.get(&format!("{path}?limit=2")).await.ok().body;
    assert_eq!(titles(&first), ["4", "3"]);
    assert_eq!((&first["total"], &first["limit"], &first["offset"]), (&json!(5), &json!(2), &json!(0)));
    let cursor = first["next_cursor"].as_str().unwrap();
    let by_cursor = ada.get(&format!("{path}?limit=2&cursor={cursor}")).await.ok().body;
    let by_offset = ada.get(&format!("{path}?limit=2&offset=2")).await.ok().body;
    assert_eq!(titles(&by_cursor), ["2", "1"]);
    assert_eq!(by_cursor["conversations"], by_offset["conversations"]);
    let cursor = by_cursor["next_cursor"].as_str().unwrap();
    let last = ada.get(&format!("{path}?limit=2&cursor={cursor}")).await.ok().body;
    assert_eq!(titles(&last), ["0"]);
    assert_eq!((&last["has_more"], &last["next_cursor"]), (&json!(false), &Value::Null));
    let beyond = ada.get(&format!("{path}?limit=2&offset=5")).await.ok().body;
    assert_eq!((titles(&beyond).len(), &beyond["has_more"]), (0, &json!(false)));
    ada.get(&format!("{path}?cursor={cursor}&offset=0")).await.refuses("cursor");
    // A cursor says where, not whose: with another student's it leads into one's own list.
    let stolen = eve.get(&format!("{path}?cursor={cursor}")).await.ok().body;
    assert_eq!((&stolen["total"], titles(&stolen).len()), (&json!(0), 0));
    assert_eq!(ada.get(path).await.ok().body["limit"], 20, "the default");
}

fn contents(page: &Value) -> Vec<i64> {
    let messages = page["messages"].as_array().unwrap();
    messages.iter().map(|message| message["content"].as_str().unwrap().parse().unwrap()).collect()
}

async fn a_conversation_is_paged_by_offset_and_cursor(app: &TestApp) {
    let ada = app.student("ada").await;
    let begun = ada.post("/api/chat/conversations", json!({})).await.has(201).body;
    let path = format!("/api/chat/conversations/{}", begun["conversation"]["id"]);
    for number in 1..=4 {
        app.model.next(Behaviour::Say((number * 2).to_string()));
        let message = json!({"message": (number * 2 - 1).to_string(), "conversation_id": begun["conversation"]["id"]});
        ada.post("/api/chat/message", message).await.ok();
    }
    refuses_bad_pages(&ada, &path, 200).await;
    let get = async |query: &str| ada.get(&format!("{path}?{query}")).await.ok().body;
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
    ada.get(&format!("{path}?cursor={next}&order=desc")).await.refuses("cursor");
    ada.get(&format!("{path}?order=sideways")).await.refuses("order");
    assert_eq!(get("").await["pagination"]["limit"], 50, "the default");
}

async fn lists_keep_their_statement_budget(app: &TestApp) {
    let ada = app.student("ada").await;
    let id = ada.talk("hello").await;
    let new = |content: String| tutord_core::model::NewUserMessage {
        user_id: ada.user.id,
        target: tutord_core::model::MessageTarget::Existing(id),
        content,
        idempotency_key: None,
    };
    for size in [20, 200] {
        for number in 0..size {
            app.app.store.append_user_message(new(number.to_string())).await.unwrap();
            ada.post("/api/chat/conversations", json!({})).await.has(201);
        }
        let limit = size.min(100);
        let list = ada.get(&format!("/api/chat/conversations?limit={limit}")).await.ok();
        assert_eq!((list.body["conversations"].as_array().unwrap().len(), list.statements()), (limit, LIST_BUDGET - 1));
        let page = ada.get(&format!("/api/chat/conversations/{id}?limit={size}")).await.ok();
        assert_eq!((page.body["messages"].as_array().unwrap().len(), page.statements()), (size, PAGE_BUDGET));
    }
}

async fn conversations_are_begun_renamed_and_deleted(app: &TestApp) {
    let ada = app.student("ada").await;
    let begin = async |body: Value| ada.post("/api/chat/conversations", body).await;
    let begun = begin(json!({"title": " My title "})).await.has(201).body["conversation"].clone();
    assert_eq!(
        (&begun["title"], &begun["context_type"], &begun["message_count"]),
        (&json!("My title"), &json!("general"), &json!(0))
    );
    assert_eq!(begun["last_message_at"], begun["updated_at"]);
    begin(json!({"title": ""})).await.refuses("title");
    begin(json!({"title": "x".repeat(201)})).await.refuses("title");
    begin(json!({"context_type": "other"})).await.refuses("context_type");
    begin(json!({"context_type": "exercise"})).await.refuses("exercise_id");
    begin(json!({"context_type": "general", "exercise_id": 1})).await.refuses("exercise_id");
    begin(json!({"exercise_id": 0})).await.refuses("exercise_id");
    begin(json!({"context_type": "exercise", "exercise_id": 4711})).await.fails(404, "NOT_FOUND");
    let path = format!("/api/chat/conversations/{}", begun["id"]);
    let renamed = ada.patch(&path, json!({"title": "Renamed"})).await.ok().body;
    assert_eq!(renamed["conversation"]["title"], "Renamed");
    ada.patch(&path, json!({"title": "x".repeat(201)})).await.refuses("title");
    ada.patch(&path, json!({})).await.refuses("title");
    let deleted = ada.delete(&path).await.ok().body;
    assert_eq!(deleted["conversation_id"], begun["id"]);
    for method in [Method::DELETE, Method::GET] {
        answer(ada.request(method, &path)).await.fails(404, "NOT_FOUND");
    }
    ada.patch(&path, json!({"title": "x"})).await.fails(404, "NOT_FOUND");
    assert_eq!(ada.get("/api/chat/conversations").await.ok().body["total"], 0);
}

async fn others_conversations_do_not_exist(app: &TestApp) {
    let (ada, eve) = (app.student("ada").await, app.student("eve").await);
    let id = ada.talk("my secret").await;
    let path = format!("/api/chat/conversations/{id}");
    let missing = eve.get("/api/chat/conversations/4711").await.body;
    for answer in [
        eve.get(&path).await,
        eve.patch(&path, json!({"title": "mine"})).await,
        eve.delete(&path).await,
        eve.post(&format!("{path}/retry"), json!({})).await,
        eve.post("/api/chat/message", json!({"message": "hi", "conversation_id": id})).await,
        eve.post("/api/chat/stream", json!({"message": "hi", "conversation_id": id})).await,
    ] {
        answer.fails(404, "NOT_FOUND");
        assert_eq!(answer.body, missing, "like one that does not exist");
    }
    assert_eq!(ada.get(&path).await.ok().body["conversation"]["message_count"], 2);
    assert_eq!(app.model.received().len(), 1, "the model was asked once, for its owner");
}

async fn bounds_of_a_message_are_named(app: &TestApp) {
    let ada = app.student("ada").await;
    for path in ["/api/chat/message", "/api/chat/stream"] {
        let send = async |body: Value| ada.post(path, body).await;
        assert_eq!(send(json!({"message": " \n "})).await.refuses("message"), "message must have at least 1 character");
        let long = "é".repeat(5001);
        assert_eq!(
            send(json!({"message": long})).await.refuses("message"),
            "message must have at most 5000 characters"
        );
        send(json!({})).await.refuses("message");
        send(json!({"message": 5})).await.refuses("message");
        send(json!({"message": "x", "conversation_id": 0})).await.refuses("conversation_id");
        send(json!({"message": "x", "conversation_id": "1"})).await.refuses("conversation_id");
        send(json!({"message": "x", "idempotency_key": "k".repeat(65)})).await.refuses("idempotency_key");
    }
    assert_eq!(ada.get("/api/chat/conversations").await.ok().body["total"], 0);
    ada.post("/api/chat/message", json!({"message": "é".repeat(5000)})).await.ok();
}

async fn a_failing_model_loses_no_message(app: &TestApp) {
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
        let failed = ada.post("/api/chat/message", json!({"message": "keep me"})).await;
        failed.fails(503, "LLM_UNAVAILABLE");
        assert_eq!(failed.headers["retry-after"], retry_after);
        let details = &failed.body["error"]["details"];
        let page = ada.get(&format!("/api/chat/conversations/{}", details["conversation_id"])).await.ok().body;
        assert_eq!(page["messages"].as_array().unwrap().len(), 1);
        assert_eq!(page["messages"][0]["id"], details["user_message_id"]);
    }
}

async fn a_reply_with_a_character_that_no_database_keeps_is_kept(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Say("a\0b".to_owned()));
    let sent = ada.post("/api/chat/message", json!({"message": "hello"})).await.ok().body;
    assert_eq!(sent["response"], "a\u{fffd}b");
}

async fn retrying_answers_the_newest_message_once(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Fail(500, None));
    let failed = ada.post("/api/chat/message", json!({"message": "why?"})).await;
    let details = failed.body["error"]["details"].clone();
    let retry = format!("/api/chat/conversations/{}/retry", details["conversation_id"]);
    app.model.next(Behaviour::Fail(503, None));
    ada.post(&retry, json!({})).await.fails(503, "LLM_UNAVAILABLE");
    let answered = ada.post(&retry, json!({})).await.ok().body;
    assert_eq!(answered["user_message_id"], details["user_message_id"]);
    assert_eq!(answered["response"], "You said: why?");
    // A client that lost the answer is told it.
    let again = ada.post(&retry, json!({})).await.ok().body;
    assert_eq!(again, answered);
    let empty = ada.post("/api/chat/conversations", json!({})).await.has(201).body;
    let retry = format!("/api/chat/conversations/{}/retry", empty["conversation"]["id"]);
    ada.post(&retry, json!({})).await.fails(409, "CONFLICT");
}

async fn a_key_belongs_to_one_message(app: &TestApp) {
    let ada = app.student("ada").await;
    let elsewhere = ada.talk("another conversation").await;
    let send = async |mut body: Value| {
        body["idempotency_key"] = "key".into();
        ada.post("/api/chat/message", body).await
    };
    let first = send(json!({"message": "why?"})).await.ok().body;
    let conversation = &first["conversation_id"];
    for same in [json!({"message": " why? "}), json!({"message": "why?", "conversation_id": conversation})] {
        assert_eq!(send(same).await.ok().body, first);
    }
    for other in [json!({"message": "how?"}), json!({"message": "why?", "conversation_id": elsewhere})] {
        let refused = send(other.clone()).await;
        refused.fails(422, "VALIDATION_ERROR");
        assert_eq!(refused.body["error"]["details"]["field"], "idempotency_key", "{other}");
        let mut streamed = other;
        streamed["idempotency_key"] = "key".into();
        ada.post("/api/chat/stream", streamed).await.fails(422, "VALIDATION_ERROR");
    }
    let second = json!({"message": "and then?", "conversation_id": conversation, "idempotency_key": "second"});
    ada.post("/api/chat/message", second.clone()).await.ok();
    let unnamed = json!({"message": "and then?", "idempotency_key": "second"});
    ada.post("/api/chat/message", unnamed).await.fails(422, "VALIDATION_ERROR");
    ada.post("/api/chat/message", second).await.ok();
}

async fn a_client_that_gives_up_finds_the_reply_later(app: &TestApp) {
    let ada = app.student("ada").await;
    let (answer, told) = oneshot::channel();
    app.model.next(Behaviour::SayLater("at last".to_owned(), told));
    let request = app.request(Method::POST, "/api/chat/message").bearer_auth(&ada.token);
    let request = request.json(&json!({"message": "hello", "idempotency_key": "key"})).send();
    let call = tokio::spawn(request);
    app.model.until_arrived(1).await;
    call.abort();
    let _ = call.await;
    answer.send(()).unwrap();
    // The same key asks the model a second time only if the reply is not stored yet.
    loop {
        let list = ada.get("/api/chat/conversations").await.ok().body;
        if list["conversations"][0]["last_message_preview"] == "at last" {
            break;
        }
        tokio::task::yield_now().await;
    }
    let again = ada.post("/api/chat/message", json!({"message": "hello", "idempotency_key": "key"})).await.ok().body;
    assert_eq!(again["response"], "at last");
    assert_eq!(app.model.received().len(), 1);
}

async fn a_repeated_request_is_answered_from_the_store(app: &TestApp) {
    let ada = app.student("ada").await;
    let body = json!({"message": "why?", "idempotency_key": "k1"});
    app.model.next(Behaviour::Fail(500, None));
    let failed = ada.post("/api/chat/message", body.clone()).await;
    failed.fails(503, "LLM_UNAVAILABLE");
    let first = ada.post("/api/chat/message", body.clone()).await.ok().body;
    assert_eq!(first["user_message_id"], failed.body["error"]["details"]["user_message_id"]);
    let again = ada.post("/api/chat/message", body).await.ok().body;
    assert_eq!(first, again);
    assert_eq!(app.model.received().len(), 2);
    assert_eq!(ada.get("/api/chat/conversations").await.ok().body["conversations"][0]["message_count"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_answer_one_question_store_one_reply() {
    let app = TestApp::postgres(&[]).await;
    let ada = app.student("ada").await;
    let body = json!({"message": "why?", "idempotency_key": "k1"});
    let (tell, told) = oneshot::channel();
    app.model.next(Behaviour::SayLater("too late".to_owned(), told));
    let first = tokio::spawn(answer(ada.request(Method::POST, "/api/chat/message").json(&body)));
    app.model.until_arrived(1).await;
    let other = app.another(&[]).await;
    let again = ada.at(&other).post("/api/chat/message", body).await.ok().body;
    tell.send(()).unwrap();
    assert_eq!(first.await.unwrap().ok().body, again);
    assert_eq!(again["response"], "You said: why?");
    let page = ada.get(&format!("/api/chat/conversations/{}", again["conversation_id"])).await.ok().body;
    assert_eq!(page["conversation"]["message_count"], 2);
}

async fn without_a_model_messages_are_kept(app: &TestApp) {
    let ada = app.student("ada").await;
    for path in ["/api/chat/message", "/api/chat/stream"] {
        let refused = ada.post(path, json!({"message": "hello"})).await;
        refused.fails(503, "LLM_NOT_CONFIGURED");
        let details = &refused.body["error"]["details"];
        let path = format!("/api/chat/conversations/{}", details["conversation_id"]);
        assert_eq!(ada.get(&path).await.ok().body["messages"][0]["id"], details["user_message_id"]);
    }
}

async fn the_model_sees_this_student_and_a_bounded_history(app: &TestApp) {
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    let profile = |goals: &str| LearningProfile {
        programming_language: "rust".to_owned(),
        skill_level: SkillLevel::Advanced,
        career_goals: goals.to_owned(),
        learning_style: "reading".to_owned(),
        time_commitment: "weekends".to_owned(),
    };
    app.app.store.complete_onboarding(ada.user.id, profile("Write a compiler")).await.unwrap();
    app.app.store.complete_onboarding(bob.user.id, profile("Bob's secret goal")).await.unwrap();
    bob.talk("Bob's secret question").await;
    let id = ada.talk("first").await;
    for number in 0..4 {
        let message = format!("{number} {}", "x".repeat(300));
        ada.post("/api/chat/message", json!({"message": message, "conversation_id": id})).await.ok();
    }
    let received = app.model.received();
    let prompt = received.last().unwrap().body["messages"].as_array().unwrap().clone();
    assert_eq!(prompt[0]["role"], "system");
    let system = prompt[0]["content"].as_str().unwrap();
    assert!(system.contains("Write a compiler") && system.contains("advanced"));
    assert!(!received.last().unwrap().body.to_string().contains("Bob"));
    assert!(prompt.last().unwrap()["content"].as_str().unwrap().starts_with("3 "));
    let roles: Vec<&str> = prompt[1..].iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert!(prompt.len() < 10, "the oldest of ten messages were left out: {roles:?}");
}

async fn the_model_is_told_what_the_student_is_good_at(app: &TestApp) {
    crate::exercises::load_catalogue(app).await;
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    app.model.next(crate::exercises::review(100));
    let exercise = ada.get("/api/exercises/1").await.ok().body;
    ada.post("/api/exercises/1/submit", json!({"solution": "x"})).await.ok();
    for client in [&ada, &bob] {
        client.talk("What next?").await;
    }
    let received = app.model.received();
    let [of_ada, of_bob] = [1, 2].map(|index| received[index].body["messages"][0]["content"].as_str().unwrap());
    let topic = exercise["topics"].as_str().unwrap().split(',').next().unwrap();
    let strengths = of_ada.lines().find(|line| line.starts_with("- strengths: ")).unwrap();
    assert!(strengths.contains(topic), "{strengths}");
    assert!(!of_bob.contains("strengths"), "{of_bob}");
}

async fn a_deleted_conversation_leaves_no_rows(app: &TestApp) {
    let ada = app.student("ada").await;
    let id = ada.talk("hello").await;
    ada.delete(&format!("/api/chat/conversations/{id}")).await.ok();
    // The rows go in the background; the runner ends a test that waits for ever.
    let rows = "SELECT (SELECT count(*) FROM messages) + (SELECT count(*) FROM conversations)";
    while crate::process::count(&app.app.config.database.url(), rows).await != 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
