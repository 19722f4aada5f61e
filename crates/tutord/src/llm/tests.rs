//! Tests of the client against a fake endpoint over HTTP.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use testbed::FakeModel;
use testbed::model::Behaviour;
use tokio::sync::mpsc;

use super::{
    ChatMessage, ChatRequest, Chunk, LlmError, MESSAGE_OVERHEAD, ModelEndpoint, OpenAi, OpenAiConfig, PromptRole,
    Provider, SystemRole, estimate_tokens,
};

async fn setup() -> (FakeModel, OpenAi) {
    let model = FakeModel::start().await.unwrap();
    let provider = provider(&model.base_url(), Duration::from_secs(30));
    (model, provider)
}

fn provider(base_url: &str, timeout: Duration) -> OpenAi {
    // Loads the tokenizer's tables, which can take longer than the time-outs of some tests.
    estimate_tokens("");
    // Another test of this process may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    OpenAi::new(config(base_url, timeout), Arc::default()).unwrap()
}

fn config(base_url: &str, timeout: Duration) -> OpenAiConfig {
    OpenAiConfig {
        base_url: base_url.parse().unwrap(),
        api_key: Some("sk-secret".to_owned()),
        model: "configured".to_owned(),
        timeout,
        max_retries: 1,
        max_reply_bytes: 20_000,
        system_role: SystemRole::System,
        extra_body: serde_json::Map::new(),
    }
}

fn request(text: &str) -> ChatRequest {
    let message = ChatMessage { role: PromptRole::User, content: text.to_owned() };
    ChatRequest { messages: vec![message], max_tokens: 100, temperature: 0.5, student: None, question_starts: vec![0] }
}

async fn chunks(provider: &OpenAi) -> Vec<Result<Chunk, LlmError>> {
    provider.stream(request("hello")).await.unwrap().collect().await
}

#[tokio::test]
async fn a_reply_is_returned_with_its_metadata() {
    let (model, provider) = setup().await;
    let reply = provider.complete(request("hello")).await.unwrap();
    assert_eq!((reply.content.as_str(), reply.model.as_str()), ("You said: hello", "fake-1"));
    assert_eq!((reply.tokens_used, reply.finish_reason.as_str()), (13, "stop"));
    let received = &model.received()[0];
    assert_eq!(received.authorization.as_deref(), Some("Bearer sk-secret"));
    let expected = serde_json::json!({
        "model": "configured", "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 100, "temperature": 0.5, "stream": false,
    });
    assert_eq!(received.body, expected);
    assert!(!format!("{provider:?}").contains("secret"));
}

#[tokio::test]
async fn tokens_are_estimated_if_the_endpoint_reports_none() {
    let (model, provider) = setup().await;
    let prompt_tokens = estimate_tokens("hello") + MESSAGE_OVERHEAD;
    model.next(Behaviour::SayWithoutUsage("one two three".to_owned()));
    let whole = provider.complete(request("hello")).await.unwrap().tokens_used;
    assert_eq!(whole, prompt_tokens + estimate_tokens("one two three"));
    // The estimate of each piece is rounded up.
    let expected = prompt_tokens + ["one ", "two ", "three"].map(estimate_tokens).iter().sum::<u32>();
    model.next(Behaviour::SayWithoutUsage("one two three".to_owned()));
    let Some(Ok(Chunk::Done { tokens_used, .. })) = chunks(&provider).await.pop() else { panic!() };
    assert_eq!(tokens_used, expected);
}

#[tokio::test]
async fn requests_to_a_busy_endpoint_are_retried() {
    let (model, provider) = setup().await;
    for status in [429, 500, 503] {
        let before = model.received().len();
        model.next(Behaviour::Fail(status, Some("0")));
        provider.complete(request("hello")).await.unwrap();
        assert_eq!(model.received().len(), before + 2);
    }
    model.next(Behaviour::Fail(502, None));
    assert!(provider.stream(request("hello")).await.is_ok(), "a stream that has not begun is repeated too");
}

#[tokio::test]
async fn requests_fail_after_the_last_retry() {
    let (model, provider) = setup().await;
    for _ in 0..2 {
        model.next(Behaviour::Fail(500, None));
    }
    let error = provider.complete(request("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Unavailable { retry_after: None, .. }), "{error}");
    // The client reports a pause beyond the limit instead of waiting.
    model.next(Behaviour::Fail(429, Some("3600")));
    let error = provider.complete(request("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::RateLimited { .. }), "{error}");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert_eq!(model.received().len(), 3);
}

#[tokio::test]
async fn refused_requests_are_not_retried() {
    let (model, provider) = setup().await;
    model.next(Behaviour::Fail(401, None));
    let error = provider.complete(request("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Rejected { status: 401, .. }), "{error}");
    assert_eq!(model.received().len(), 1);
}

#[tokio::test]
async fn an_unusable_response_is_an_error() {
    let (model, provider) = setup().await;
    model.next(Behaviour::Garbage);
    let error = provider.complete(request("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Protocol(_)), "{error}");
    model.next(Behaviour::Garbage);
    let chunks = chunks(&provider).await;
    assert!(matches!(chunks.as_slice(), [Err(LlmError::Protocol(_))]), "{chunks:?}");
}

#[tokio::test]
async fn an_unreachable_endpoint_is_unavailable() {
    let error = provider("http://127.0.0.1:1/v1", Duration::from_secs(5)).complete(request("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn requests_to_a_hanging_endpoint_time_out() {
    let model = FakeModel::start().await.unwrap();
    let provider = provider(&model.base_url(), Duration::from_millis(100));
    model.next(Behaviour::Hang);
    let error = provider.complete(request("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Timeout(_)), "{error}");
    model.until_left(1).await;
    // The same limit applies to a silent stream.
    let (_feed, pieces) = mpsc::channel(1);
    model.next(Behaviour::Feed(pieces));
    let chunks = chunks(&provider).await;
    assert!(matches!(chunks.as_slice(), [Err(LlmError::Timeout(_))]), "{chunks:?}");
}

#[tokio::test]
async fn a_stream_yields_pieces_and_then_the_end() {
    let (model, provider) = setup().await;
    model.next(Behaviour::Say("one two".to_owned()));
    let chunks: Vec<Chunk> = chunks(&provider).await.into_iter().map(Result::unwrap).collect();
    let done =
        Chunk::Done { model: "fake-1".to_owned(), tokens_used: 12, finish_reason: "stop".to_owned(), cached: false };
    assert_eq!(chunks, [Chunk::Delta("one ".to_owned()), Chunk::Delta("two".to_owned()), done]);
    assert_eq!(model.received()[0].body["stream_options"]["include_usage"], true);
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_an_error() {
    let (model, provider) = setup().await;
    let (feed, pieces) = mpsc::channel(1);
    model.next(Behaviour::Feed(pieces));
    let mut stream = provider.stream(request("hello")).await.unwrap();
    feed.send("half".to_owned()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), Chunk::Delta("half".to_owned()));
    drop(feed);
    assert!(matches!(stream.next().await, Some(Err(LlmError::Unavailable { .. }))));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn dropping_a_call_cancels_the_request_to_the_endpoint() {
    let (model, provider) = setup().await;
    model.next(Behaviour::Hang);
    let provider = std::sync::Arc::new(provider);
    let call = tokio::spawn({
        let provider = provider.clone();
        async move { provider.complete(request("hello")).await }
    });
    model.until_arrived(1).await;
    call.abort();
    model.until_left(1).await;
    let (_feed, pieces) = mpsc::channel(1);
    model.next(Behaviour::Feed(pieces));
    drop(provider.stream(request("hello")).await.unwrap());
    model.until_left(2).await;
}

/// Returns the text, the finish reason and the tokens of a stream of these bytes.
async fn read(body: &str) -> Result<(String, String, u32), LlmError> {
    let (model, provider) = setup().await;
    model.next(Behaviour::Raw(200, "text/event-stream", body.as_bytes().to_vec()));
    let mut content = String::new();
    let mut chunks = provider.stream(request("hello")).await?;
    while let Some(chunk) = chunks.next().await {
        match chunk? {
            Chunk::Delta(text) => content.push_str(&text),
            Chunk::Done { finish_reason, tokens_used, .. } => return Ok((content, finish_reason, tokens_used)),
        }
    }
    panic!("a stream without an end")
}

#[tokio::test]
async fn streams_of_all_shapes_are_parsed() {
    const HI: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
    const STOP: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    for (name, body) in [
        ("done", format!("{HI}{STOP}data: [DONE]\n\n")),
        ("no done", format!("{HI}{STOP}")),
        ("no finish reason", format!("{HI}data: [DONE]\n\n")),
        ("neither", HI.to_owned()),
        ("comments", format!(": OPENROUTER PROCESSING\n\n{HI}:\n\n{STOP}")),
        ("empty data", format!("data:\n\ndata: \n\n{HI}{STOP}")),
        ("carriage returns", format!("{HI}{STOP}").replace('\n', "\r\n")),
        ("byte order mark", format!("\u{feff}{HI}{STOP}")),
        ("several lines", format!("data: {{\"choices\":\ndata: [{{\"delta\":{{\"content\":\"hi\"}}}}]}}\n\n{STOP}")),
        ("null choices", format!("data: {{\"choices\":null}}\n\n{HI}{STOP}")),
        (
            "role first",
            format!("data: {{\"choices\":[{{\"delta\":{{\"role\":\"assistant\",\"content\":null}}}}]}}\n\n{HI}{STOP}"),
        ),
        ("null delta", format!("{HI}data: {{\"choices\":[{{\"delta\":null,\"finish_reason\":\"stop\"}}]}}\n\n")),
        ("empty usage", format!("{HI}{STOP}data: {{\"choices\":[],\"usage\":{{}}}}\n\n")),
        ("null usage", format!("{HI}{STOP}data: {{\"usage\":null}}\n\n")),
        ("negative usage", format!("{HI}{STOP}data: {{\"usage\":{{\"total_tokens\":-3}}}}\n\n")),
        ("no json", format!("data: ping\n\n{HI}{STOP}")),
        ("a whole answer", r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#.to_owned()),
        (
            "parts",
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":[{{\"type\":\"text\",\"text\":\"hi\"}}]}}}}]}}\n\n{STOP}"
            ),
        ),
        ("reasoning", format!("data: {{\"choices\":[{{\"delta\":{{\"reasoning_content\":\"hm\"}}}}]}}\n\n{HI}{STOP}")),
    ] {
        let (text, finish_reason, tokens) = read(&body).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((text.as_str(), finish_reason.as_str()), ("hi", "stop"), "{name}");
        assert_eq!(tokens, estimate_tokens("hello") + MESSAGE_OVERHEAD + estimate_tokens("hi"), "{name}");
    }
    let odd = format!(
        "{HI}data: {{\"choices\":[{{\"finish_reason\":\"Eos Token!\"}}],\"usage\":{{\"total_tokens\":6.7}}}}\n\n"
    );
    assert_eq!(read(&odd).await.unwrap(), ("hi".to_owned(), "stop".to_owned(), 7));
    for (body, cause) in [
        (
            format!("{HI}data: {{\"error\":{{\"message\":\"the prompt\",\"code\":\"overloaded\"}}}}\n\n"),
            "code overloaded",
        ),
        (format!("{HI}event: error\ndata: {{\"message\":\"the prompt\"}}\n\n"), "an error instead"),
        ("<html>the prompt</html>".to_owned(), "HTML"),
        (STOP.to_owned(), "no text"),
        (
            "data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"},\"finish_reason\":\"length\"}]}\n\n".to_owned(),
            "LLM_EXTRA_BODY",
        ),
        (String::new(), "no text"),
    ] {
        let error = read(&body).await.unwrap_err().to_string();
        assert!(error.contains(cause) && !error.contains("the prompt"), "{error}");
    }
}

#[tokio::test]
async fn responses_of_any_length_are_bounded() {
    let (model, provider) = setup().await;
    let (first, more) = (b"data: {\"choices\":[{\"delta\":{\"content\":\"".to_vec(), vec![b'x'; 1_024]);
    let text = [&first[..], &more, b"\"}}]}\n\n"].concat();
    // One event without an end, for a stream and for a whole response; the limit is 2 × 20,000 bytes + 32 KiB.
    let body = br#"{"choices":[{"message":{"content":""#.to_vec();
    model.next(Behaviour::Endless(first, more.clone()));
    let chunks = chunks(&provider).await;
    assert!(matches!(chunks.as_slice(), [Err(LlmError::Protocol(_))]), "{chunks:?}");
    model.next(Behaviour::Endless(body, more));
    let error = provider.complete(request("hello")).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    // The reply of many events is truncated.
    model.next(Behaviour::Endless(text.clone(), text));
    let reply = provider.complete(request("hello")).await.unwrap();
    assert_eq!((reply.content.len(), reply.finish_reason.as_str()), (20_000, "length"));
    model.next(Behaviour::Endless(b": ".to_vec(), vec![b'x'; 1_024]));
    assert!(provider.complete(request("hello")).await.is_err(), "a comment without an end");
    // The socket buffers hold more than the client read.
    assert!(model.sent() < 4 * 6_000_000, "{}", model.sent());
}

#[tokio::test]
async fn retries_are_counted_by_cause() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let model = FakeModel::start().await.unwrap();
    let usage = Arc::<crate::llm::Usage>::default();
    let counting = OpenAi::new(config(&model.base_url(), Duration::from_secs(30)), Arc::clone(&usage)).unwrap();
    model.next(Behaviour::Fail(429, None));
    counting.complete(request("hello")).await.unwrap();
    model.next(Behaviour::Fail(503, None));
    counting.complete(request("hello")).await.unwrap();
    let counted: Vec<_> = usage.retries().collect();
    assert_eq!(counted, [("rate_limited", 1), ("server_error", 1), ("connection", 0)]);
}

#[tokio::test]
async fn errors_contain_names_but_no_text() {
    let (model, provider) = setup().await;
    let body = br#"{"error":{"message":"the prompt","type":"invalid_request_error","code":"no_such_model"}}"#.to_vec();
    model.next(Behaviour::Raw(404, "application/json", body));
    let error = provider.complete(request("hello")).await.unwrap_err().to_string();
    assert!(error.contains("404") && error.contains("code no_such_model, type invalid_request_error"), "{error}");
    assert!(!error.contains("the prompt"), "{error}");
    model.next(Behaviour::Redirect("http://127.0.0.1:1/elsewhere".to_owned()));
    let error = provider.complete(request("hello")).await.unwrap_err().to_string();
    assert!(error.contains("307") && error.contains("LLM_BASE_URL"), "{error}");
    model.next(Behaviour::Raw(400, "text/html", vec![b'x'; 1_000_000]));
    let error = provider.complete(request("hello")).await.unwrap_err().to_string();
    assert!(error.contains("8192 bytes of text/html"), "{error}");
}

/// Returns a conversation of `turns` turns before the question.
fn conversation(turns: usize) -> ChatRequest {
    let message = |role, content: &str| ChatMessage { role, content: content.to_owned() };
    let mut request = request("the question");
    for _ in 0..turns {
        request.messages.insert(0, message(PromptRole::Assistant, "an answer of some words"));
        request.messages.insert(0, message(PromptRole::User, "a question of some words"));
    }
    request.messages.insert(0, message(PromptRole::System, "teach"));
    request
}

/// Returns the number of messages in each request that the model received.
fn lengths(model: &FakeModel) -> Vec<usize> {
    model.received().iter().map(|received| received.body["messages"].as_array().unwrap().len()).collect()
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_shortened_up_to_three_times() {
    let (model, provider) = setup().await;
    let refused = || {
        let body = r#"{"error":{"message":"This model's maximum context length is 10 tokens","code":null}}"#;
        Behaviour::Raw(400, "application/json", body.into())
    };
    let long = conversation(100);
    let whole = provider.prompt_tokens(u32::MAX);
    assert_eq!(whole, u32::MAX, "no limit is known before the first refusal");
    model.next(refused());
    provider.complete(long.clone()).await.unwrap();
    let sent = lengths(&model);
    assert!(sent[0] == 202 && (90..=102).contains(&sent[1]) && sent.len() == 2, "{sent:?}");
    let learnt = provider.prompt_tokens(u32::MAX);
    assert!((800..1_400).contains(&learnt), "{learnt}");
    // The last attempt contains only the question.
    for _ in 0..4 {
        model.next(refused());
    }
    assert!(matches!(provider.complete(long.clone()).await, Err(LlmError::Rejected { status: 400, .. })));
    let sent = lengths(&model).split_off(2);
    assert!(sent.len() == 4 && sent.is_sorted_by(|one, next| one > next) && sent[3] == 2, "{sent:?}");
    assert_eq!(model.received()[5].body["messages"][1]["content"], "the question");
    assert!(provider.prompt_tokens(u32::MAX) < learnt);
    // A grading prompt is not truncated.
    model.next(refused());
    let whole = ChatRequest { question_starts: Vec::new(), ..request(&"word ".repeat(2_000)) };
    assert!(matches!(provider.complete(whole).await, Err(LlmError::Rejected { .. })));
    assert_eq!(model.received().len(), 7);
}

#[tokio::test]
async fn refusals_of_a_length_are_detected_with_any_status() {
    let ollama = r#"{"error":"input length exceeds maximum context length"}"#;
    let tgi = r#"{"error":"Input validation error: `inputs` tokens + `max_new_tokens` must be <= 700"}"#;
    let quota = r#"{"error":{"message":"Request too large for `m`: Limit 700, Requested 5000","code":"x"}}"#;
    for (status, content_type, body, limit) in [
        (500, "application/json", ollama, 1_000),
        (422, "application/json", tgi, 600),
        (413, "text/html", "<html>Request Entity Too Large</html>", 1_000),
        (429, "application/json", quota, 600),
        (400, "text/plain", "prompt is too long: 1000 tokens > 700 maximum", 600),
    ] {
        let (model, provider) = setup().await;
        let request = conversation(100);
        model.next(Behaviour::Raw(status, content_type, body.into()));
        provider.complete(request).await.unwrap();
        let sent = lengths(&model);
        assert!(sent.len() == 2 && sent[1] < sent[0], "{status}: {sent:?}");
        let learnt = provider.prompt_tokens(u32::MAX);
        assert!(learnt == limit || limit == 1_000 && learnt > limit, "{status}: {learnt}");
    }
}

#[tokio::test]
async fn an_unknown_model_is_not_a_refusal_of_a_length() {
    let (model, provider) = setup().await;
    let body = r#"{"error":{"message":"no model with a context window of 300 tokens"}}"#;
    model.next(Behaviour::Raw(404, "application/json", body.into()));
    let error = provider.complete(conversation(100)).await.unwrap_err();
    assert!(matches!(error, LlmError::Rejected { status: 404, .. }), "{error}");
    assert_eq!((model.received().len(), provider.prompt_tokens(4_000)), (1, 4_000));
}

#[tokio::test]
async fn a_refusal_with_status_200_shortens_the_next_prompt() {
    let (model, provider) = setup().await;
    let body = r#"{"error":{"message":"This model's maximum context length is 700 tokens","code":400}}"#;
    model.next(Behaviour::Raw(200, "application/json", body.into()));
    let error = provider.complete(conversation(100)).await.unwrap_err();
    assert!(matches!(error, LlmError::Rejected { .. }), "{error}");
    assert_eq!(provider.prompt_tokens(4_000), 600);
}

#[tokio::test]
async fn a_context_shorter_than_a_reply_shortens_the_reply() {
    let (model, provider) = setup().await;
    let text = "'max_tokens' is too large: 1024. This model's maximum context length is 600 tokens";
    let body = format!(r#"{{"object":"error","message":"{text}","code":400}}"#);
    model.next(Behaviour::Raw(400, "application/json", body.into()));
    provider.complete(ChatRequest { max_tokens: 1_024, ..request("hello") }).await.unwrap();
    let sent: Vec<_> = model.received().iter().map(|received| received.body["max_tokens"].clone()).collect();
    assert_eq!(sent, [1_024, 300]);
}

#[tokio::test]
async fn the_reply_limit_of_an_endpoint_is_adopted() {
    let (model, provider) = setup().await;
    let long_request = || ChatRequest { max_tokens: 1_024, ..request("hello") };
    let refused = |status, content_type, text: &str| Behaviour::Raw(status, content_type, text.into());
    model.next(refused(
        422,
        "application/json",
        r#"{"detail":[{"loc":["body","max_tokens"],"msg":"Input should be less than or equal to 800","input":1024}]}"#,
    ));
    model.next(refused(400, "text/plain", "`max_tokens` must be less than or equal to `512`"));
    model.next(refused(400, "application/json", r#"{"error":{"message":"too large","param":"max_tokens"}}"#));
    model.next(refused(
        422,
        "application/json",
        r#"{"error":"Input validation error: `max_new_tokens` must be <= 200"}"#,
    ));
    provider.complete(long_request()).await.unwrap();
    provider.complete(long_request()).await.unwrap();
    let sent: Vec<_> = model.received().iter().map(|received| received.body["max_tokens"].clone()).collect();
    assert_eq!(sent, [1_024, 800, 512, 256, 200, 200]);
    // An endpoint that does not support the parameter gets the other one.
    model.next(refused(400, "text/html", "<h1>Unknown field max_tokens</h1>"));
    provider.complete(long_request()).await.unwrap();
    assert_eq!(model.received().pop().unwrap().body["max_completion_tokens"], 200);
    // The client gives up on an endpoint that refuses every value.
    let stubborn = |body: &serde_json::Value| {
        let sent = body["max_completion_tokens"].as_u64()?;
        let text = format!("max_completion_tokens must be at most {}", sent - 1);
        Some((400, "text/plain", text.into_bytes()))
    };
    model.refuse(stubborn);
    let before = model.received().len();
    assert!(matches!(provider.complete(long_request()).await, Err(LlmError::Rejected { .. })));
    assert!(model.received().len() - before < 15);
}

#[tokio::test]
async fn a_finished_reply_does_not_wait_for_the_end_of_the_stream() {
    let (model, provider) = setup().await;
    let body = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\n";
    model.next(Behaviour::Open("text/event-stream", body.into()));
    let began = std::time::Instant::now();
    let chunks: Vec<Chunk> = chunks(&provider).await.into_iter().map(Result::unwrap).collect();
    assert!(matches!(chunks.as_slice(), [Chunk::Delta(_), Chunk::Done { .. }]), "{chunks:?}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_stream_of_comments_alone_times_out() {
    let model = FakeModel::start().await.unwrap();
    let provider = provider(&model.base_url(), Duration::from_millis(300));
    model.next(Behaviour::Endless(b": hello\n".to_vec(), b": again\n".to_vec()));
    let chunks = chunks(&provider).await;
    let [Err(LlmError::Timeout(after))] = chunks.as_slice() else { panic!("{chunks:?}") };
    assert_eq!(*after, Duration::from_secs(3));
}

#[tokio::test]
async fn refusals_are_returned_as_text_or_as_an_error() {
    let filtered = r#"{"choices":[{"message":{"content":null},"finish_reason":"content_filter"}]}"#;
    let refused = r#"{"error":{"message":"the prompt","code":"content_filter"}}"#;
    for (status, body) in [(200, filtered), (400, refused)] {
        let (model, provider) = setup().await;
        model.next(Behaviour::Raw(status, "application/json", body.into()));
        let error = provider.complete(request("hello")).await.unwrap_err();
        assert!(matches!(error, LlmError::Declined(_)) && error.retry_after().is_none(), "{error}");
    }
    let (model, provider) = setup().await;
    let body = r#"{"choices":[{"message":{"content":null,"refusal":"I can't help."},"finish_reason":"stop"}]}"#;
    model.next(Behaviour::Raw(200, "application/json", body.into()));
    assert_eq!(provider.complete(request("hello")).await.unwrap().content, "I can't help.");
    let body = "data: {\"choices\":[{\"delta\":{\"refusal\":\"I can't.\"}}]}\n\ndata: [DONE]\n\n";
    assert_eq!(read(body).await.unwrap().0, "I can't.");
}
