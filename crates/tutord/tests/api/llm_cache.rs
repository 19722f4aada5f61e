//! A repeated message gets the cached reply of the model.

use reqwest::Method;
use serde_json::json;
use testbed::model::Behaviour;

use crate::support::{TestApp, TestClient, fetch};

crate::on_both!(
    a_repeated_message_gets_the_cached_reply,
    a_repeated_stream_gets_the_cached_reply,
    another_student_gets_a_new_reply,
    a_changed_profile_gets_a_new_reply,
    concurrent_messages_cause_one_request_to_the_model,
    a_failure_is_not_cached,
    a_reply_of_a_high_temperature_is_not_cached(llm_cache_max_temperature(0.5)),
    a_ttl_of_zero_disables_the_cache(llm_cache_ttl_seconds(0)),
);

const MESSAGE: &str = "What is a closure?";

/// Sends the message in a new conversation; returns whether the reply was cached.
async fn gets_cached_reply(client: &TestClient<'_>) -> bool {
    client.send_message(json!({"message": MESSAGE})).await.assert_ok().body["cached"].as_bool().unwrap()
}

/// Streams the reply to the message in a new conversation; returns the text of the response.
async fn stream_reply(client: &TestClient<'_>) -> String {
    let request = client.request(Method::POST, "/api/chat/stream").json(&json!({"message": MESSAGE}));
    fetch(request).await.assert_ok().text().to_owned()
}

async fn a_repeated_message_gets_the_cached_reply(app: &TestApp) {
    let ada = app.student("ada").await;
    assert!(!gets_cached_reply(&ada).await);
    assert!(gets_cached_reply(&ada).await);
    assert_eq!(app.model.received().len(), 1);
}

async fn a_repeated_stream_gets_the_cached_reply(app: &TestApp) {
    let ada = app.student("ada").await;
    assert!(!gets_cached_reply(&ada).await);
    let streamed = stream_reply(&ada).await;
    assert!(streamed.contains(r#"data: {"content":"You said: What is a closure?"}"#), "{streamed}");
    assert!(streamed.contains(r#""tokens_used":0,"cached":true,"finish_reason":"stop""#), "{streamed}");
    let list = ada.get("/api/chat/conversations").await.assert_ok().body;
    let newest = &list["conversations"][0]["id"];
    let page = ada.get(&format!("/api/chat/conversations/{newest}")).await.assert_ok().body;
    assert_eq!(page["messages"][1]["metadata"]["cached"], true);
    assert_eq!(app.model.received().len(), 1);
}

async fn another_student_gets_a_new_reply(app: &TestApp) {
    let (ada, bob) = (app.student("ada").await, app.student("bob").await);
    assert!(!gets_cached_reply(&ada).await);
    assert!(!gets_cached_reply(&bob).await);
    assert_eq!(app.model.received().len(), 2);
}

/// The profile is a part of the prompt. The cache contains streamed replies too.
async fn a_changed_profile_gets_a_new_reply(app: &TestApp) {
    let ada = app.student("ada").await;
    assert!(!gets_cached_reply(&ada).await);
    ada.put("/api/users/me", json!({"programming_language": "rust"})).await.assert_ok();
    stream_reply(&ada).await;
    assert_eq!(app.model.received().len(), 2);
    assert!(gets_cached_reply(&ada).await);
    assert_eq!(app.model.received().len(), 2);
}

async fn concurrent_messages_cause_one_request_to_the_model(app: &TestApp) {
    let ada = app.student("ada").await;
    let (release, released) = tokio::sync::oneshot::channel();
    app.model.next(Behaviour::SayLater("Only once.".to_owned(), released));
    let send =
        || tokio::spawn(fetch(ada.request(Method::POST, "/api/chat/message").json(&json!({"message": MESSAGE}))));
    let first = send();
    app.model.until_arrived(1).await;
    let second = send();
    release.send(()).unwrap();
    let (first, second) = (first.await.unwrap().assert_ok().body, second.await.unwrap().assert_ok().body);
    assert_eq!((&first["response"], &second["response"]), (&json!("Only once."), &json!("Only once.")));
    assert_eq!((&first["cached"], &second["cached"]), (&json!(false), &json!(true)));
    assert_eq!(app.model.received().len(), 1);
}

async fn a_failure_is_not_cached(app: &TestApp) {
    let ada = app.student("ada").await;
    app.model.next(Behaviour::Fail(400, None));
    ada.send_message(json!({"message": MESSAGE})).await.assert_error(503, "LLM_UNAVAILABLE");
    assert!(!gets_cached_reply(&ada).await);
    assert!(gets_cached_reply(&ada).await);
}

async fn a_reply_of_a_high_temperature_is_not_cached(app: &TestApp) {
    let ada = app.student("ada").await;
    assert!(!gets_cached_reply(&ada).await && !gets_cached_reply(&ada).await);
}

async fn a_ttl_of_zero_disables_the_cache(app: &TestApp) {
    let ada = app.student("ada").await;
    assert!(!gets_cached_reply(&ada).await && !gets_cached_reply(&ada).await);
}
