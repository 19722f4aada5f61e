//! A conversation with each kind of endpoint that implements OpenAI's chat completions.

use serde_json::{Value, json};
use testbed::Endpoint;
use testbed::model::Behaviour;

use crate::support::builder::TestAppBuilder;
use crate::support::event_stream::streamed_text;
use crate::support::fixtures::exercises::exercise_path;
use crate::support::fixtures::grade_reply;
use crate::support::{TestApp, TestClient};

/// Sends messages, complete and streamed, one of which fails; returns the last request to the model.
async fn converse(endpoint: Endpoint, options: TestAppBuilder) -> Value {
    let app = options.start().await;
    app.model.behave_as(endpoint);
    let ada = app.student("ada").await;
    let whole = ada.send_message(json!({"message": "hello"})).await.assert_ok().body;
    let text = whole["response"].as_str().unwrap();
    assert!(text.starts_with("You said: ") && text.ends_with("hello"), "{endpoint:?}: {text}");
    let conversation = &whole["conversation_id"];
    app.model.next(Behaviour::Fail(500, None));
    let failed = json!({"message": "unanswered", "conversation_id": conversation});
    ada.send_message(failed).await.assert_error(503, "LLM_UNAVAILABLE");
    let body = json!({"message": "again", "conversation_id": conversation});
    let events = ada.stream_message(body).await.collect().await;
    let text = streamed_text(&events);
    assert!(text.starts_with("You said: ") && text.ends_with("again"), "{endpoint:?}: {events:?}");
    let (name, done) = events.last().unwrap();
    assert_eq!((name.as_str(), &done["finish_reason"]), ("done", &json!("stop")), "{endpoint:?}");
    assert!(done["tokens_used"].as_i64().unwrap() > 0, "{endpoint:?}");
    app.model.received().pop().unwrap().body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_openai_model_gets_its_own_parameters() {
    let sent = converse(Endpoint::OpenAi, TestApp::sqlite()).await;
    assert_eq!(sent["max_completion_tokens"], 2_048);
    assert!(sent.get("max_tokens").is_none() && sent.get("temperature").is_none(), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_template_gets_alternating_roles() {
    let sent = converse(Endpoint::StrictVllm, TestApp::sqlite().llm_system_role("user")).await;
    let roles: Vec<&Value> = sent["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_gateway_gets_no_unknown_fields() {
    let sent = converse(Endpoint::AzureGateway, TestApp::sqlite()).await;
    assert!(sent.get("stream_options").is_none(), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_endpoint_answers_a_conversation() {
    for endpoint in Endpoint::ALL {
        // The template of that endpoint has no system role.
        if endpoint != Endpoint::StrictVllm {
            converse(endpoint, TestApp::sqlite().llm_extra_body(r#"{"top_p": 0.9}"#)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_beyond_the_context_is_shortened() {
    let app = TestApp::sqlite().llm_context_tokens(100_000).start().await;
    app.model.behave_as(Endpoint::LlamaCpp);
    let ada = app.student("ada").await;
    let mut conversation = Value::Null;
    for number in 0..8 {
        let body = json!({"message": format!("{number} {}", "word ".repeat(200)), "conversation_id": conversation});
        conversation = ada.send_message(body).await.assert_ok().body["conversation_id"].clone();
    }
    assert!(app.model.received().len() > 8, "the endpoint rejected some prompts first");
}

/// Makes the model reject prompts of more than 2,500 characters.
fn reject_long_prompts(app: &TestApp, status: u16, content_type: &'static str, text: &'static str) {
    app.model.refuse(move |body| {
        let contents = body["messages"].as_array()?.iter().filter_map(|message| message["content"].as_str());
        let is_long = contents.map(|content| content.chars().count()).sum::<usize>() > 2_500;
        is_long.then(|| (status, content_type, text.into()))
    });
}

/// Returns a question of about 970 characters.
fn question(number: usize) -> String {
    format!("question {number}{}", " words and words".repeat(60))
}

/// Returns the last message of each request that the model received.
fn last_messages(app: &TestApp) -> Vec<String> {
    let last =
        |body: &Value| body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    app.model.received().iter().map(|received| last(&received.body)).collect()
}

async fn stream(client: &TestClient<'_>, conversation: &Value, text: &str) -> Vec<(String, Value)> {
    client.stream_message(json!({"message": text, "conversation_id": conversation})).await.collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_outlasts_a_context_that_is_shorter_than_configured() {
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
        let app = TestApp::sqlite().start().await;
        reject_long_prompts(&app, status, content_type, text);
        let ada = app.student("ada").await;
        let mut conversation = Value::Null;
        for number in 0..10 {
            let before = app.model.received().len();
            let body = json!({"message": question(number), "conversation_id": conversation});
            conversation = ada.send_message(body).await.assert_ok().body["conversation_id"].clone();
            let requests = app.model.received().len() - before;
            assert!(requests == 1 || number < 6 && requests < 4, "{text}: {requests} requests for message {number}");
        }
        let events = stream(&ada, &conversation, &question(10)).await;
        assert_eq!(events.last().unwrap().0, "done", "{text}: {events:?}");
        assert_eq!(last_messages(&app).pop().unwrap(), question(10), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_outlasts_unanswered_questions() {
    let app = TestApp::sqlite().start().await;
    let ada = app.student("ada").await;
    let conversation = ada.start_conversation("hello").await;
    let send = async |text: &str| ada.send_message_in(conversation, text).await;
    for number in 0..4 {
        app.model.next(Behaviour::Fail(500, None));
        send(&question(number)).await.assert_error(503, "LLM_UNAVAILABLE");
    }
    // The endpoint restarts with a shorter context. The prompt contains the newest questions that fit.
    reject_long_prompts(&app, 400, "text/plain", "too many tokens");
    let answered = send(&question(4)).await.assert_ok().body;
    let sent = last_messages(&app).split_off(5);
    assert!(sent[0].starts_with(&question(0)) && sent[0].ends_with(&question(4)), "{sent:?}");
    assert!(sent.last().unwrap().ends_with(&question(4)) && !sent.last().unwrap().contains("question 2"), "{sent:?}");
    assert!(answered["response"].as_str().unwrap().ends_with(&question(4)));
    let before = app.model.received().len();
    send("short?").await.assert_ok();
    assert_eq!(app.model.received().len(), before + 1);
    // The prompt truncates a question that does not fit alone.
    let long = format!("My code: {} Why does it fail?", question(5).repeat(3));
    send(&long).await.assert_ok();
    let sent = last_messages(&app).pop().unwrap();
    assert!(sent.starts_with("My code: ") && sent.ends_with("Why does it fail?") && sent.contains("[…]"), "{sent}");
    let stored = ada.get(&conversation.path()).await.assert_ok().body;
    let messages = stored["messages"].as_array().unwrap();
    assert_eq!(messages[messages.len() - 2]["content"], long, "stored completely");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_the_reply_length_is_learned_for_all_requests() {
    let app = TestApp::sqlite().llm_max_reply_tokens(600).start().await;
    let exercises = app.load_catalogue().await;
    app.model.refuse(|body| {
        let text = "`max_tokens` must be less than or equal to `512`, the maximum value for `max_tokens` is less than the \
                    `context_window` for this model";
        (body["max_tokens"].as_u64()? > 512).then(|| (400, "application/json", json!({"error": {"message": text}}).to_string().into()))
    });
    let ada = app.student("ada").await;
    app.model.next(grade_reply(70));
    ada.submit_solution(exercises[0], json!({"solution": "x"})).await.assert_ok();
    ada.start_conversation("hello").await;
    ada.start_conversation("again").await;
    ada.generate_exercise("A written exercise").await;
    app.model.next(Behaviour::Say("Look at your loop.".to_owned()));
    let hint = format!("{}/hint", exercise_path(exercises[1]));
    ada.post(&hint, json!({"context": "I am lost"})).await.assert_ok();
    let sent: Vec<Value> = app.model.received().iter().map(|received| received.body["max_tokens"].clone()).collect();
    assert_eq!(sent, [600, 600, 512, 512, 512, 300]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_in_plain_text_is_learned() {
    let app = TestApp::sqlite().start().await;
    app.model.refuse(|body| body.get("max_tokens").map(|_| (400, "text/plain", b"unknown field max_tokens".into())));
    let ada = app.student("ada").await;
    ada.start_conversation("hello").await;
    ada.start_conversation("again").await;
    let sent: Vec<bool> =
        app.model.received().iter().map(|received| received.body.get("max_completion_tokens").is_some()).collect();
    assert_eq!(sent, [false, true, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grade_is_parsed_leniently() {
    let app = TestApp::sqlite().start().await;
    let exercises = app.load_catalogue().await;
    let ada = app.student("ada").await;
    for (index, said, grade, feedback) in [
        (
            0,
            r#"{"grade": 69.6, "feedback": "Well\nbegun.", "strengths": null, "improvements": "names"}"#,
            70,
            "Well\nbegun.",
        ),
        (
            1,
            "{\"grade\": \"85\", \"feedback\": \"Two\nlines \\ud83d\", \"strengths\": [1, null, \"tests\"]}",
            85,
            "Two\nlines \u{fffd}",
        ),
        (
            2,
            r#"<think>{"grade": 1, "feedback": "hm"}</think> {"grade": 70.0, "feedback": "a\u0000b"} Done: {}."#,
            70,
            "ab",
        ),
    ] {
        app.model.next(Behaviour::Say(said.to_owned()));
        let graded = ada.submit_solution(exercises[index], json!({"solution": "x"})).await.assert_ok().body;
        assert_eq!((&graded["grade"], &graded["feedback"]), (&json!(grade), &json!(feedback)), "{said}");
    }
    assert_eq!(app.model.received().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_the_model_sends_the_finish_reason() {
    let app = TestApp::sqlite().llm_timeout_seconds(30).start().await;
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
async fn an_exceeded_quota_does_not_open_the_circuit_breaker() {
    let app = TestApp::sqlite().llm_cache_ttl_seconds(0).start().await;
    let ada = app.student("ada").await;
    let send = async || ada.send_message(json!({"message": "hello"})).await;
    for _ in 0..6 {
        app.model.next(Behaviour::Fail(429, Some("7")));
        let limited = send().await;
        limited.assert_error(503, "LLM_UNAVAILABLE");
        assert_eq!(limited.headers["retry-after"], "7");
    }
    send().await.assert_ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_reply_tells_the_student_to_rephrase() {
    let app = TestApp::sqlite().start().await;
    let ada = app.student("ada").await;
    let filtered = r#"{"choices":[{"message":{"content":null},"finish_reason":"content_filter"}]}"#;
    app.model.next(Behaviour::Raw(200, "application/json", filtered.into()));
    let declined = ada.send_message(json!({"message": "hello"})).await;
    let message = declined.assert_error(503, "LLM_UNAVAILABLE");
    assert!(message.contains("declined") && message.contains("rephrase"), "{message}");
    assert!(!declined.headers.contains_key("retry-after"));
    assert!(declined.body["error"]["details"]["user_message_id"].is_i64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_model_is_its_reply() {
    let app = TestApp::sqlite().start().await;
    let ada = app.student("ada").await;
    let refusal = "data: {\"choices\":[{\"delta\":{\"refusal\":\"I can't help with that.\"}}]}\n\ndata: [DONE]\n\n";
    app.model.next(Behaviour::Raw(200, "text/event-stream", refusal.into()));
    let events = stream(&ada, &Value::Null, "hello").await;
    assert_eq!((events[1].1["content"].as_str(), events[2].0.as_str()), (Some("I can't help with that."), "done"));
}
