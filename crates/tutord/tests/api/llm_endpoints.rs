//! A conversation with each kind of endpoint that speaks OpenAI's chat completions.

use reqwest::Method;
use serde_json::{Value, json};
use testbed::Endpoint;
use testbed::model::Behaviour;

use crate::exercises::load_catalogue;
use crate::harness::{Client, TestApp};
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
    let request = ada.request(Method::POST, "/api/chat/stream").json(&body);
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
    assert_eq!(sent["max_completion_tokens"], 2_048);
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

/// Refuses prompts of more than 2,500 characters.
fn refuse_long_prompts(app: &TestApp, status: u16, content_type: &'static str, text: &'static str) {
    app.model.refuse(move |body| {
        let contents = body["messages"].as_array()?.iter().filter_map(|message| message["content"].as_str());
        let is_long = contents.map(|content| content.chars().count()).sum::<usize>() > 2_500;
        is_long.then(|| (status, content_type, text.into()))
    });
}

/// A question of some 970 characters.
fn question(number: usize) -> String {
    format!("question {number}{}", " words and words".repeat(60))
}

/// What the last message of each request was that the model received.
fn last_messages(app: &TestApp) -> Vec<String> {
    let last =
        |body: &Value| body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    app.model.received().iter().map(|received| last(&received.body)).collect()
}

async fn stream(client: &Client<'_>, conversation: &Value, text: &str) -> Vec<(String, Value)> {
    let body = json!({"message": text, "conversation_id": conversation});
    Events::of(client.request(Method::POST, "/api/chat/stream").json(&body)).await.rest().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_shorter_than_configured_ends_no_conversation() {
    const JSON: &str = "application/json";
    for (status, content_type, text) in [
        (
            400,
            JSON,
            r#"{"error":{"message":"This model's maximum context length is 600 tokens.","code":"context_length_exceeded"}}"#,
        ),
        (
            400,
            JSON,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error","n_prompt_tokens":900,"n_ctx":600}}"#,
        ),
        (400, JSON, r#"{"error":{"message":"prompt is too long: 208310 tokens > 200000 maximum"}}"#),
        (422, JSON, r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 600"}"#),
        (500, JSON, r#"{"error":"input length exceeds maximum context length"}"#),
        (413, "text/html", "<html>413 Request Entity Too Large</html>"),
    ] {
        let app = TestApp::sqlite(&[]).await;
        refuse_long_prompts(&app, status, content_type, text);
        let ada = app.student("ada").await;
        let mut conversation = Value::Null;
        for number in 0..10 {
            let before = app.model.received().len();
            let body = json!({"message": question(number), "conversation_id": conversation});
            conversation = ada.post("/api/chat/message", body).await.ok().body["conversation_id"].clone();
            let requests = app.model.received().len() - before;
            assert!(requests == 1 || number < 6 && requests < 4, "{text}: {requests} requests for message {number}");
        }
        let events = stream(&ada, &conversation, &question(10)).await;
        assert_eq!(events.last().unwrap().0, "done", "{text}: {events:?}");
        assert_eq!(last_messages(&app).pop().unwrap(), question(10), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unanswered_questions_do_not_end_a_conversation() {
    let app = TestApp::sqlite(&[]).await;
    let ada = app.student("ada").await;
    let conversation = json!(ada.talk("hello").await);
    let ask = async |text: &str| {
        ada.post("/api/chat/message", json!({"message": text, "conversation_id": conversation})).await
    };
    for number in 0..4 {
        app.model.next(Behaviour::Fail(500, None));
        ask(&question(number)).await.fails(503, "LLM_UNAVAILABLE");
    }
    // The endpoint restarts with a shorter context. The newest questions that fit are sent.
    refuse_long_prompts(&app, 400, "text/plain", "too many tokens");
    let answered = ask(&question(4)).await.ok().body;
    let sent = last_messages(&app).split_off(5);
    assert!(sent[0].starts_with(&question(0)) && sent[0].ends_with(&question(4)), "{sent:?}");
    assert!(sent.last().unwrap().ends_with(&question(4)) && !sent.last().unwrap().contains("question 2"), "{sent:?}");
    assert!(answered["response"].as_str().unwrap().ends_with(&question(4)));
    let before = app.model.received().len();
    ask("short?").await.ok();
    assert_eq!(app.model.received().len(), before + 1);
    // A question that does not fit by itself is cut.
    let long = format!("My code: {} Why does it fail?", question(5).repeat(3));
    ask(&long).await.ok();
    let sent = last_messages(&app).pop().unwrap();
    assert!(sent.starts_with("My code: ") && sent.ends_with("Why does it fail?") && sent.contains("[…]"), "{sent}");
    let stored = ada.get(&format!("/api/chat/conversations/{conversation}")).await.ok().body;
    let messages = stored["messages"].as_array().unwrap();
    assert_eq!(messages[messages.len() - 2]["content"], long, "stored whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_a_reply_are_learnt_and_hold_for_all_requests() {
    let app = TestApp::sqlite(&["--llm-max-reply-tokens", "600"]).await;
    load_catalogue(&app).await;
    app.model.refuse(|body| {
        let text = "`max_tokens` must be less than or equal to `512`, the maximum value for `max_tokens` is less than the \
                    `context_window` for this model";
        (body["max_tokens"].as_u64()? > 512).then(|| (400, "application/json", json!({"error": {"message": text}}).to_string().into()))
    });
    let ada = app.student("ada").await;
    app.model.next(crate::exercises::review(70));
    ada.post("/api/exercises/1/submit", json!({"solution": "x"})).await.ok();
    ada.talk("hello").await;
    ada.talk("again").await;
    app.model.next(crate::exercises::written("A written exercise"));
    ada.post("/api/exercises/generate", json!({})).await.has(201);
    app.model.next(Behaviour::Say("Look at your loop.".to_owned()));
    ada.post("/api/exercises/2/hint", json!({"context": "I am lost"})).await.ok();
    let sent: Vec<Value> = app.model.received().iter().map(|received| received.body["max_tokens"].clone()).collect();
    assert_eq!(sent, [600, 600, 512, 512, 512, 300]);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_in_plain_text_are_learnt() {
    let app = TestApp::sqlite(&[]).await;
    app.model.refuse(|body| body.get("max_tokens").map(|_| (400, "text/plain", b"unknown field max_tokens".into())));
    let ada = app.student("ada").await;
    ada.talk("hello").await;
    ada.talk("again").await;
    let sent: Vec<bool> =
        app.model.received().iter().map(|received| received.body.get("max_completion_tokens").is_some()).collect();
    assert_eq!(sent, [false, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn grades_are_read_tolerantly() {
    let app = TestApp::sqlite(&[]).await;
    load_catalogue(&app).await;
    let ada = app.student("ada").await;
    for (id, said, grade, feedback) in [
        (
            1,
            r#"{"grade": 69.6, "feedback": "Well\nbegun.", "strengths": null, "improvements": "names"}"#,
            70,
            "Well\nbegun.",
        ),
        (
            2,
            "{\"grade\": \"85\", \"feedback\": \"Two\nlines \\ud83d\", \"strengths\": [1, null, \"tests\"]}",
            85,
            "Two\nlines \u{fffd}",
        ),
        (
            3,
            r#"<think>{"grade": 1, "feedback": "hm"}</think> {"grade": 70.0, "feedback": "a\u0000b"} Done: {}."#,
            70,
            "ab",
        ),
    ] {
        app.model.next(Behaviour::Say(said.to_owned()));
        let graded = ada.post(&format!("/api/exercises/{id}/submit"), json!({"solution": "x"})).await.ok().body;
        assert_eq!((&graded["grade"], &graded["feedback"]), (&json!(grade), &json!(feedback)), "{said}");
    }
    assert_eq!(app.model.received().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_done_once_the_model_has_ended_it() {
    let app = TestApp::sqlite(&["--llm-timeout-seconds", "30"]).await;
    let ada = app.student("ada").await;
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"All of it.\"},\"finish_reason\":\"stop\"}]}\n\n";
    app.model.next(Behaviour::Open("text/event-stream", body.into()));
    let began = std::time::Instant::now();
    let events = stream(&ada, &Value::Null, "hello").await;
    assert_eq!(
        (events.last().unwrap().0.as_str(), &events.last().unwrap().1["finish_reason"]),
        ("done", &json!("stop"))
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_and_refusals_are_told_from_failures() {
    let app = TestApp::sqlite(&["--llm-cache-ttl", "0"]).await;
    let ada = app.student("ada").await;
    let ask = async || ada.post("/api/chat/message", json!({"message": "hello"})).await;
    for _ in 0..6 {
        app.model.next(Behaviour::Fail(429, Some("7")));
        let limited = ask().await;
        limited.fails(503, "LLM_UNAVAILABLE");
        assert_eq!(limited.headers["retry-after"], "7");
    }
    ask().await.ok();
    let filtered = r#"{"choices":[{"message":{"content":null},"finish_reason":"content_filter"}]}"#;
    app.model.next(Behaviour::Raw(200, "application/json", filtered.into()));
    let declined = ask().await;
    let message = declined.fails(503, "LLM_UNAVAILABLE");
    assert!(message.contains("declined") && message.contains("rephrase"), "{message}");
    assert!(!declined.headers.contains_key("retry-after"));
    assert!(declined.body["error"]["details"]["user_message_id"].is_i64());
    let refusal = "data: {\"choices\":[{\"delta\":{\"refusal\":\"I can't help with that.\"}}]}\n\ndata: [DONE]\n\n";
    app.model.next(Behaviour::Raw(200, "text/event-stream", refusal.into()));
    let events = stream(&ada, &Value::Null, "hello").await;
    assert_eq!((events[1].1["content"].as_str(), events[2].0.as_str()), (Some("I can't help with that."), "done"));
}
