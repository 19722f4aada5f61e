//! A conversation with each kind of endpoint that speaks OpenAI's chat completions.

use serde_json::{Value, json};
use testbed::Endpoint;
use testbed::model::Behaviour;

use crate::harness::TestApp;
use crate::stream::Events;

/// Sends messages, whole and streamed, one of which fails; returns what was sent last.
async fn converse(endpoint: Endpoint, arguments: &[&str]) -> Value {
    let app = TestApp::sqlite(arguments).await;
    app.model.behave_as(endpoint);
    let ada = app.student("ada").await;
    let whole = ada.post("/api/chat/message", json!({"message": "hello"})).await.ok().body;
    let text = whole["response"].as_str().unwrap();
    assert!(text.starts_with("You said: ") && text.ends_with("hello"), "{endpoint:?}: {text}");
    let conversation = &whole["conversation_id"];
    app.model.next(Behaviour::Fail(500, None));
    let failed = json!({"message": "nobody answers", "conversation_id": conversation});
    ada.post("/api/chat/message", failed).await.fails(503, "LLM_UNAVAILABLE");
    let body = json!({"message": "again", "conversation_id": conversation});
    let request = ada.request(reqwest::Method::POST, "/api/chat/stream").json(&body);
    let events = Events::of(request).await.rest().await;
    let text: String = events.iter().filter_map(|(_, data)| data["content"].as_str()).collect();
    assert!(text.starts_with("You said: ") && text.ends_with("again"), "{endpoint:?}: {events:?}");
    let (name, done) = events.last().unwrap();
    assert_eq!((name.as_str(), &done["finish_reason"]), ("done", &json!("stop")), "{endpoint:?}");
    assert!(done["tokens_used"].as_i64().unwrap() > 0, "{endpoint:?}");
    app.model.received().pop().unwrap().body
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_s_newer_models() {
    let sent = converse(Endpoint::OpenAi, &[]).await;
    assert_eq!(sent["max_completion_tokens"], 1_024);
    assert!(sent.get("max_tokens").is_none() && sent.get("temperature").is_none(), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_templates() {
    let sent = converse(Endpoint::StrictVllm, &["--llm-system-role", "user"]).await;
    let roles: Vec<&Value> = sent["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_gateway() {
    let sent = converse(Endpoint::AzureGateway, &[]).await;
    assert!(sent.get("stream_options").is_none(), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_others() {
    for endpoint in Endpoint::ALL {
        // The template of this one knows no system role.
        if endpoint != Endpoint::StrictVllm {
            converse(endpoint, &["--llm-extra-body", r#"{"top_p": 0.9}"#]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_context() {
    let app = TestApp::sqlite(&["--llm-context-tokens", "100000"]).await;
    app.model.behave_as(Endpoint::LlamaCpp);
    let ada = app.student("ada").await;
    let mut conversation = Value::Null;
    for number in 0..8 {
        let body = json!({"message": format!("{number} {}", "word ".repeat(200)), "conversation_id": conversation});
        conversation = ada.post("/api/chat/message", body).await.ok().body["conversation_id"].clone();
    }
    assert!(app.model.received().len() > 8, "some were refused first");
}
