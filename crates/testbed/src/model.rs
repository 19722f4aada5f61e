//! A fake OpenAI-compatible model over HTTP.
//!
//! By default it repeats the last user message. A test can queue one [`Behaviour`] for each request, and can wait until
//! requests arrive or clients disconnect.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::endpoints::{Endpoint, RawAnswer};

/// The response to one request.
#[derive(Debug)]
pub enum Behaviour {
    /// Replies with this text. A stream sends one word at a time.
    Say(String),
    /// Replies with this text, without the token count.
    SayWithoutUsage(String),
    /// Replies with this text once the channel receives a message or closes.
    SayLater(String, oneshot::Receiver<()>),
    /// Responds with a status and an optional `Retry-After`.
    Fail(u16, Option<&'static str>),
    /// Responds with 200 and a body that is not a chat completion.
    Garbage,
    /// Responds with these bytes and ends the body, for any request.
    Raw(u16, &'static str, Vec<u8>),
    /// Responds with 200 and these bytes, and keeps the connection open.
    Open(&'static str, Vec<u8>),
    /// Sends the first bytes, and then repeats the second ones until the client disconnects.
    Endless(Vec<u8>, Vec<u8>),
    /// Redirects to this URL.
    Redirect(String),
    /// Never responds.
    Hang,
    /// Streams the messages of the channel. Closing the channel breaks the connection.
    Feed(mpsc::Receiver<String>),
}

/// A received request.
#[derive(Debug, Clone)]
pub struct Received {
    /// The JSON body.
    pub body: Value,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

/// A rule that refuses some requests.
type Rule = Box<dyn Fn(&Value) -> Option<RawAnswer> + Send>;

#[derive(Default)]
struct Script {
    behaviours: VecDeque<Behaviour>,
    endpoint: Option<Endpoint>,
    rule: Option<Rule>,
    received: Vec<Received>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script")
            .field("behaviours", &self.behaviours)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// A running fake model; cheap to clone.
#[derive(Debug, Clone)]
pub struct FakeModel {
    address: std::net::SocketAddr,
    script: Arc<Mutex<Script>>,
    arrived: Arc<watch::Sender<usize>>,
    left: Arc<watch::Sender<usize>>,
    sent: Arc<AtomicUsize>,
}

impl FakeModel {
    /// Serves on a free port until the runtime ends.
    ///
    /// # Errors
    /// Returns an error if no port is free.
    pub async fn start() -> anyhow::Result<Self> {
        Self::listen("127.0.0.1:0").await
    }

    /// Serves on this address until the runtime ends.
    ///
    /// # Errors
    /// Returns an error if the address is in use.
    pub async fn listen(address: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let model = Self {
            address: listener.local_addr()?,
            script: Arc::default(),
            arrived: Arc::new(watch::Sender::new(0)),
            left: Arc::new(watch::Sender::new(0)),
            sent: Arc::default(),
        };
        let router = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/models", get(async || Json(json!({"object": "list", "data": [{"id": "fake"}]}))))
            .with_state(model.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(model)
    }

    /// Returns the URL for `LLM_BASE_URL`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Queues the behaviour for one request.
    pub fn next(&self, behaviour: Behaviour) {
        self.lock().behaviours.push_back(behaviour);
    }

    /// Responds like an endpoint of this kind to requests without a queued [`Behaviour`].
    pub fn behave_as(&self, endpoint: Endpoint) {
        self.lock().endpoint = Some(endpoint);
    }

    /// Applies the rule to requests without a queued [`Behaviour`].
    pub fn refuse(&self, rule: impl Fn(&Value) -> Option<RawAnswer> + Send + 'static) {
        self.lock().rule = Some(Box::new(rule));
    }

    /// Returns all requests in the order of their arrival.
    pub fn received(&self) -> Vec<Received> {
        self.lock().received.clone()
    }

    /// Returns the number of bytes of [endless](Behaviour::Endless) bodies that the server wrote.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until this many requests have arrived.
    pub async fn until_arrived(&self, count: usize) {
        // `self` owns the sender, so the channel is open.
        let _ = self.arrived.subscribe().wait_for(|arrived| *arrived >= count).await;
    }

    /// Waits until this many clients have disconnected before the end of their response.
    pub async fn until_left(&self, count: usize) {
        let _ = self.left.subscribe().wait_for(|left| *left >= count).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a disconnected client if it is dropped before the response is complete.
struct Guard {
    left: Arc<watch::Sender<usize>>,
    complete: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.complete {
            self.left.send_modify(|left| *left += 1);
        }
    }
}

async fn complete(State(model): State<FakeModel>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    let mut guard = Guard { left: model.left.clone(), complete: false };
    let streams = body["stream"] == true;
    let echo = body["messages"].as_array().and_then(|messages| messages.last()).map(|last| last["content"].clone());
    let echo = format!("You said: {}", echo.as_ref().and_then(Value::as_str).unwrap_or_default());
    let behaviour = {
        let mut script = model.lock();
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let refused = script.rule.as_ref().and_then(|rule| rule(&body));
        let answered = refused.or_else(|| Some(script.endpoint?.answer(&body, &echo)));
        let as_endpoint = answered.map(|(status, content_type, body)| Behaviour::Raw(status, content_type, body));
        script.received.push(Received { body, authorization });
        script.behaviours.pop_front().or(as_endpoint).unwrap_or(Behaviour::Say(echo))
    };
    model.arrived.send_modify(|arrived| *arrived += 1);
    let behaviour = match behaviour {
        Behaviour::SayLater(text, told) => {
            let _ = told.await;
            Behaviour::Say(text)
        }
        at_once => at_once,
    };
    let response = match behaviour {
        Behaviour::Say(text) if streams => return event_stream(guard, words(&text, true)),
        Behaviour::SayWithoutUsage(text) if streams => return event_stream(guard, words(&text, false)),
        Behaviour::Say(text) | Behaviour::SayLater(text, _) => Json(whole(&text, true)).into_response(),
        Behaviour::SayWithoutUsage(text) => Json(whole(&text, false)).into_response(),
        Behaviour::Fail(status, retry_after) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response =
                (status, Json(json!({"error": {"message": "as scripted", "type": "test"}}))).into_response();
            if let Some(value) = retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(value));
            }
            response
        }
        Behaviour::Raw(status, content_type, body) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
        }
        Behaviour::Open(content_type, bytes) => {
            let pieces = stream::iter([Ok::<_, std::convert::Infallible>(bytes)]).chain(stream::pending());
            return ([(header::CONTENT_TYPE, content_type)], Body::from_stream(pieces)).into_response();
        }
        Behaviour::Endless(first, again) => {
            let sent = Arc::clone(&model.sent);
            let pieces = stream::iter([first]).chain(stream::repeat(again)).inspect(move |piece| {
                sent.fetch_add(piece.len(), Ordering::Relaxed);
            });
            let body = Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>));
            return ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response();
        }
        Behaviour::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response(),
        Behaviour::Garbage if streams => {
            return event_stream(guard, stream::iter(["data: {not json\n\n".to_owned()]).map(Ok));
        }
        Behaviour::Garbage => Json(json!({"nothing": "of use"})).into_response(),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Feed(pieces) => {
            let events = stream::unfold(pieces, async |mut pieces| {
                let piece = pieces.recv().await?;
                Some((delta(&piece), pieces))
            });
            // The stream ends without its last chunk, which breaks the connection.
            let broken = stream::iter([Err(std::io::Error::other("broken off as scripted"))]);
            return event_stream(guard, events.map(Ok).chain(broken));
        }
    };
    guard.complete = true;
    response
}

fn event_stream(guard: Guard, events: impl Stream<Item = std::io::Result<String>> + Send + 'static) -> Response {
    let events = events.map(|event| event.map(Bytes::from));
    let body = stream::unfold((Box::pin(events), guard), async |(mut events, mut guard)| match events.next().await {
        Some(event) => Some((event, (events, guard))),
        None => {
            guard.complete = true;
            None
        }
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
}

fn words(text: &str, usage: bool) -> impl Stream<Item = std::io::Result<String>> + Send + 'static {
    let mut events: Vec<String> = text.split_inclusive(' ').map(delta).collect();
    events.push(event(&json!({"model": "fake-1", "choices": [{"delta": {}, "finish_reason": "stop"}]})));
    if usage {
        events.push(event(&json!({"model": "fake-1", "choices": [], "usage": used(text)})));
    }
    events.push("data: [DONE]\n\n".to_owned());
    stream::iter(events).map(Ok)
}

fn delta(content: &str) -> String {
    event(&json!({"model": "fake-1", "choices": [{"delta": {"content": content}, "finish_reason": null}]}))
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn whole(text: &str, usage: bool) -> Value {
    let message = json!({"role": "assistant", "content": text});
    let mut body = json!({"model": "fake-1", "choices": [{"message": message, "finish_reason": "stop"}]});
    if usage {
        body["usage"] = used(text);
    }
    body
}

/// Returns a deterministic token count: 10 for the prompt, and 1 for each word of the reply.
fn used(text: &str) -> Value {
    json!({"total_tokens": 10 + text.split_whitespace().count()})
}
