//! The client against a fake endpoint over real HTTP.

use std::time::Duration;

use futures_util::StreamExt as _;
use testbed::FakeModel;
use testbed::model::Behaviour;
use tokio::sync::mpsc;

use super::{ChatMessage, ChatRequest, Chunk, LlmError, OpenAi, OpenAiConfig, Provider, Role, estimate_tokens};

async fn setup() -> (FakeModel, OpenAi) {
    let model = FakeModel::start().await.unwrap();
    let provider = provider(&model.base_url(), Duration::from_secs(30));
    (model, provider)
}

fn provider(base_url: &str, timeout: Duration) -> OpenAi {
    // Another test of this process may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = OpenAiConfig {
        base_url: base_url.to_owned(),
        api_key: Some("sk-secret".to_owned()),
        model: "configured".to_owned(),
        timeout,
        max_retries: 1,
    };
    OpenAi::new(config).unwrap()
}

fn ask(text: &str) -> ChatRequest {
    let message = ChatMessage { role: Role::User, content: text.to_owned() };
    ChatRequest { messages: vec![message], max_tokens: 100, temperature: 0.5, student: None }
}

async fn chunks(provider: &OpenAi) -> Vec<Result<Chunk, LlmError>> {
    provider.stream(ask("hello")).await.unwrap().collect().await
}

#[tokio::test]
async fn a_whole_reply() {
    let (model, provider) = setup().await;
    let reply = provider.complete(ask("hello")).await.unwrap();
    assert_eq!((reply.content.as_str(), reply.model.as_str()), ("You said: hello", "fake-1"));
    assert_eq!((reply.tokens_used, reply.finish_reason.as_str()), (13, "stop"));
    let received = &model.received()[0];
    assert_eq!(received.authorization.as_deref(), Some("Bearer sk-secret"));
    let expected = serde_json::json!({
        "model": "configured", "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 100, "temperature": 0.5, "stream": false,
    });
    assert_eq!(received.body, expected);
    provider.ping().await.unwrap();
    assert!(!format!("{provider:?}").contains("secret"));
}

#[tokio::test]
async fn tokens_are_estimated_where_the_endpoint_does_not_tell() {
    let (model, provider) = setup().await;
    let expected = estimate_tokens("hello") + estimate_tokens("one two three");
    model.next(Behaviour::SayWithoutUsage("one two three".to_owned()));
    assert_eq!(provider.complete(ask("hello")).await.unwrap().tokens_used, expected);
    model.next(Behaviour::SayWithoutUsage("one two three".to_owned()));
    let Some(Ok(Chunk::Done { tokens_used, .. })) = chunks(&provider).await.pop() else { panic!() };
    assert_eq!(tokens_used, expected);
}

#[tokio::test]
async fn a_busy_endpoint_is_asked_again() {
    let (model, provider) = setup().await;
    for status in [429, 500, 503] {
        let before = model.received().len();
        model.next(Behaviour::Fail(status, Some("0")));
        provider.complete(ask("hello")).await.unwrap();
        assert_eq!(model.received().len(), before + 2);
    }
    model.next(Behaviour::Fail(502, None));
    assert!(provider.stream(ask("hello")).await.is_ok(), "a stream that has not begun is repeated too");
}

#[tokio::test]
async fn a_busy_endpoint_is_given_up() {
    let (model, provider) = setup().await;
    for _ in 0..2 {
        model.next(Behaviour::Fail(500, None));
    }
    let error = provider.complete(ask("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Unavailable { retry_after: None, .. }), "{error}");
    // A pause beyond the bound is passed on to the client instead of being waited for.
    model.next(Behaviour::Fail(429, Some("3600")));
    let error = provider.complete(ask("hello")).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert_eq!(model.received().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let (model, provider) = setup().await;
    model.next(Behaviour::Fail(401, None));
    let error = provider.complete(ask("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Rejected { status: 401, .. }), "{error}");
    assert_eq!(model.received().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error() {
    let (model, provider) = setup().await;
    model.next(Behaviour::Garbage);
    let error = provider.complete(ask("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Protocol(_)), "{error}");
    model.next(Behaviour::Garbage);
    let chunks = chunks(&provider).await;
    assert!(matches!(chunks.as_slice(), [Err(LlmError::Protocol(_))]), "{chunks:?}");
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_unavailable() {
    let error = provider("http://127.0.0.1:1/v1", Duration::from_secs(5)).complete(ask("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_timed_out() {
    let model = FakeModel::start().await.unwrap();
    let provider = provider(&model.base_url(), Duration::from_millis(100));
    model.next(Behaviour::Hang);
    let error = provider.complete(ask("hello")).await.unwrap_err();
    assert!(matches!(error, LlmError::Timeout(_)), "{error}");
    model.until_left(1).await;
    // A stream may be silent no longer than that, either.
    let (_feed, pieces) = mpsc::channel(1);
    model.next(Behaviour::Feed(pieces));
    let chunks = chunks(&provider).await;
    assert!(matches!(chunks.as_slice(), [Err(LlmError::Timeout(_))]), "{chunks:?}");
}

#[tokio::test]
async fn a_stream_brings_pieces_then_the_end() {
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
    let mut stream = provider.stream(ask("hello")).await.unwrap();
    feed.send("half".to_owned()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), Chunk::Delta("half".to_owned()));
    drop(feed);
    assert!(matches!(stream.next().await, Some(Err(LlmError::Unavailable { .. }))));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn dropping_a_call_ends_it_upstream() {
    let (model, provider) = setup().await;
    model.next(Behaviour::Hang);
    let provider = std::sync::Arc::new(provider);
    let call = tokio::spawn({
        let provider = provider.clone();
        async move { provider.complete(ask("hello")).await }
    });
    model.until_arrived(1).await;
    call.abort();
    model.until_left(1).await;
    let (_feed, pieces) = mpsc::channel(1);
    model.next(Behaviour::Feed(pieces));
    drop(provider.stream(ask("hello")).await.unwrap());
    model.until_left(2).await;
}
