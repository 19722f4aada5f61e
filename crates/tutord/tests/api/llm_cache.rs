//! What a student asks again, word for word, is answered by the reply of before.

use reqwest::Method;
use serde_json::json;
use testbed::model::Behaviour;

use crate::harness::{Client, TestApp, answer};

crate::on_both!(
    the_same_question_is_answered_again(),
    the_same_question_at_the_same_time_asks_once(),
    a_failure_is_not_kept(),
    warmer_requests_are_answered_anew("--llm-cache-max-temperature", "0.5"),
    nothing_is_kept_when_it_is_turned_off("--llm-cache-ttl", "0"),
);

const QUESTION: &str = "What is a closure?";

/// Asks in a new conversation; whether the reply was one of before.
async fn ask(client: &Client<'_>) -> bool {
    client.post("/api/chat/message", json!({"message": QUESTION})).await.ok().body["cached"].as_bool().unwrap()
}

async fn the_same_question_is_answered_again(app: &TestApp) {
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    assert!(!ask(&ada).await);
    assert!(ask(&ada).await);
    assert_eq!(app.model.received().len(), 1);
    // Streamed, it is the same reply, and the stored one says so.
    let streamed =
        answer(ada.request(Method::POST, "/api/chat/stream").json(&json!({"message": QUESTION}))).await.ok().body;
    let streamed = streamed.as_str().unwrap();
    assert!(streamed.contains(r#"data: {"content":"You said: What is a closure?"}"#), "{streamed}");
    assert!(streamed.contains(r#""tokens_used":0,"cached":true,"finish_reason":"stop""#), "{streamed}");
    let page = ada.get("/api/chat/conversations/3").await.ok().body;
    assert_eq!(page["messages"][1]["metadata"]["cached"], true);
    assert_eq!(app.model.received().len(), 1);
    // In the same conversation it is another question, as more has been said; and another student's is another.
    ada.post("/api/chat/message", json!({"message": QUESTION, "conversation_id": 3})).await.ok();
    assert_eq!(app.model.received().len(), 2);
    assert!(!ask(&bob).await);
    // What was streamed is kept, too; and the prompt of a student who has changed is another.
    ada.put("/api/users/me", json!({"programming_language": "rust"})).await.ok();
    answer(ada.request(Method::POST, "/api/chat/stream").json(&json!({"message": QUESTION}))).await.ok();
    assert_eq!(app.model.received().len(), 4);
    assert!(ask(&ada).await);
    assert_eq!(app.model.received().len(), 4);
}

async fn the_same_question_at_the_same_time_asks_once(app: &TestApp) {
    let ada = app.student("ada").await;
    let (tell, told) = tokio::sync::oneshot::channel();
    app.model.next(Behaviour::SayLater("Only once.".to_owned(), told));
    let ask =
        || tokio::spawn(answer(ada.request(Method::POST, "/api/chat/message").json(&json!({"message": QUESTION}))));
    let first = ask();
    app.model.until_arrived(1).await;
    let second = ask();
    tell.send(()).unwrap();
    let (first, second) = (first.await.unwrap().ok().body, second.await.unwrap().ok().body);
    assert_eq!((&first["response"], &second["response"]), (&json!("Only once."), &json!("Only once.")));
    assert_eq!((&first["cached"], &second["cached"]), (&json!(false), &json!(true)));
    assert_eq!(app.model.received().len(), 1);
}

async fn a_failure_is_not_kept(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Fail(400, None));
    ada.post("/api/chat/message", json!({"message": QUESTION})).await.fails(503, "LLM_UNAVAILABLE");
    assert!(!ask(&ada).await);
    assert!(ask(&ada).await);
}

async fn warmer_requests_are_answered_anew(app: &TestApp) {
    let ada = app.student("ada").await;
    assert!(!ask(&ada).await && !ask(&ada).await);
}

async fn nothing_is_kept_when_it_is_turned_off(app: &TestApp) {
    let ada = app.student("ada").await;
    assert!(!ask(&ada).await && !ask(&ada).await);
}
