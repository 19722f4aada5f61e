//! The tutor's reply as server-sent events.
//!
//! A separate task reads the model's reply and stores it. When the client disconnects, the task notices the closed
//! channel, ends the request to the model, and stores the received part.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::FutureExt as _;
use futures_util::stream::{Stream, StreamExt, unfold};
use serde::Serialize;
use tokio::sync::mpsc;
use tracing::Instrument as _;
use tutord_core::model::{BROKEN_OFF, INTERRUPTED, Message, NewReply};

use super::exchange::{Exchange, Outcome, Question, answered, milliseconds, tokens, unavailable};
use super::state::ChatState;
use crate::http::body::{FailureFlag, panic_message};
use crate::http::error::ApiError;
use crate::llm::{Chunk, estimate_tokens};

/// The interval of keep-alive comments, so that proxies keep the connection open.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The capacity of the event channel: when a slow client fills it, reading from the model pauses.
const BUFFER: usize = 32;
/// The time after which a client that reads nothing counts as gone. The connection reports a closed client, but not one
/// that stays open and reads nothing.
const STALLED: Duration = Duration::from_secs(60);

#[derive(Serialize)]
struct Start {
    conversation_id: i64,
    user_message_id: i64,
}

#[derive(Serialize)]
struct Delta<'a> {
    content: &'a str,
}

#[derive(Serialize)]
struct Done {
    message_id: i64,
    model: String,
    tokens_used: i32,
    cached: bool,
    finish_reason: Option<String>,
}

#[derive(Serialize)]
struct Failure<'a> {
    code: &'a str,
    message: &'a str,
}

/// The reason why a reply is incomplete.
enum Interruption {
    /// The client is gone, or the server shuts down.
    Ended,
    /// A failure, which the client receives as an event.
    Failed(ApiError),
}

impl From<ApiError> for Interruption {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// Sends events to a client; fails if the client is gone or reads nothing.
struct Client {
    events: mpsc::Sender<Event>,
    patience: Duration,
}

impl Client {
    async fn send(&self, name: &str, data: &impl Serialize) -> Result<(), Interruption> {
        let event = Event::default().event(name).json_data(data).map_err(|error| ApiError::internal(&error))?;
        match tokio::time::timeout(self.patience, self.events.send(event)).await {
            Ok(sent) => sent.map_err(|_| Interruption::Ended),
            Err(_) => Err(Interruption::Ended),
        }
    }

    /// Sends a stored reply.
    async fn replay(&self, reply: Message) -> Result<(), Interruption> {
        self.send("delta", &Delta { content: &reply.content }).await?;
        self.done(reply).await
    }

    async fn done(&self, reply: Message) -> Result<(), Interruption> {
        let done = Done {
            message_id: reply.id,
            model: reply.model_used.unwrap_or_default(),
            tokens_used: reply.tokens_used.unwrap_or_default(),
            cached: reply.cached,
            finish_reason: reply.finish_reason,
        };
        self.send("done", &done).await
    }
}

/// Returns the event stream of an exchange whose message is stored.
pub(super) fn respond(
    state: &ChatState,
    exchange: Exchange,
) -> (FailureFlag, Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>) {
    let (sender, receiver) = mpsc::channel(BUFFER);
    let task = state.clone();
    let failure = FailureFlag::default();
    let failed = failure.clone();
    let delivery = async move {
        let client = Client { events: sender, patience: STALLED };
        let delivered =
            AssertUnwindSafe(deliver(&task, &client, exchange)).catch_unwind().await.unwrap_or_else(|panic| {
                Err(Interruption::Failed(ApiError::internal(&format_args!("panic: {}", panic_message(&*panic)))))
            });
        if let Err(Interruption::Failed(error)) = delivered {
            if error.is_failure() && !client.events.is_closed() && !task.streams_end.is_cancelled() {
                failed.set();
            }
            // Sending fails if the client has disconnected.
            let _ = client.send("error", &Failure { code: error.code(), message: error.message() }).await;
        }
    };
    // Log failures with the id of the request.
    state.background.spawn(delivery.in_current_span());
    let events = unfold(receiver, async |mut receiver| Some((Ok(receiver.recv().await?), receiver)));
    (failure, Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

async fn deliver(state: &ChatState, client: &Client, exchange: Exchange) -> Result<(), Interruption> {
    let (Exchange::Open(question) | Exchange::Answered(question, _)) = &exchange;
    let start = Start { conversation_id: question.message.conversation_id, user_message_id: question.message.id };
    client.send("start", &start).await?;
    match exchange {
        Exchange::Answered(_, reply) => client.replay(reply).await,
        Exchange::Open(mut question) => {
            let turn = tokio::select! {
                turn = question.turn(state) => turn?,
                () = client.events.closed() => return Err(Interruption::Ended),
                () = state.streams_end.cancelled() => {
                    return Err(ApiError::overloaded("the server is shutting down").into());
                }
            };
            match turn {
                Ok(_turn) => relay(state, client, &question).await,
                Err(stored) => client.replay(stored).await,
            }
        }
    }
}

/// Reads the model's complete reply, forwards it piece by piece, and stores it.
async fn relay(state: &ChatState, client: &Client, question: &Question) -> Result<(), Interruption> {
    let began = Instant::now();
    let (provider, request) = question.prepare(state).await?;
    let asked: u32 = request.messages.iter().map(|message| estimate_tokens(&message.content)).sum();
    let mut reply = NewReply {
        model_used: state.llm.settings.model_name().to_owned(),
        ..question.reply(provider.endpoint().name())
    };
    let mut text = String::new();
    let outcome = async {
        let mut chunks = provider.stream(request).await.map_err(|error| unavailable(&error))?;
        while let Some(chunk) = chunks.next().await {
            match chunk.map_err(|error| unavailable(&error))? {
                Chunk::Delta(content) => {
                    text.push_str(&content);
                    client.send("delta", &Delta { content: &content }).await?;
                }
                Chunk::Done { model, tokens_used, finish_reason, cached } => {
                    reply.cached = cached;
                    reply.model_used = model;
                    reply.tokens_used = tokens(tokens_used);
                    reply.finish_reason = finish_reason;
                }
            }
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = outcome => outcome,
        () = client.events.closed() => Err(Interruption::Ended),
        () = state.streams_end.cancelled() => Err(Interruption::Ended),
    };
    reply.response_time_ms = milliseconds(began.elapsed());
    reply.content = text.into();
    let stopped = match outcome {
        Ok(()) => match question.store(state, reply).await? {
            Outcome::Stored(reply) => return client.done(reply).await,
            // Another request has stored a different reply: tell the client to read that one.
            Outcome::Superseded(_) => return Err(answered().into()),
        },
        Err(stopped) => stopped,
    };
    if reply.content.is_empty() {
        // Without a stored reply the question stays open, and the student can retry it.
        return Err(stopped);
    }
    // Store the text that the student has read; a retry replaces it.
    reply.tokens_used = tokens(asked.saturating_add(estimate_tokens(&reply.content)));
    let (finish_reason, error) = match stopped {
        // Only clients read this that are connected at a shutdown.
        Interruption::Ended => (INTERRUPTED, ApiError::overloaded("the server is shutting down")),
        Interruption::Failed(error) => (BROKEN_OFF, error),
    };
    reply.finish_reason = finish_reason.to_owned();
    question.store(state, reply).await?;
    Err(Interruption::Failed(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_no_more_counts_as_gone() {
        let (sender, mut receiver) = mpsc::channel(1);
        let client = Client { events: sender, patience: Duration::from_millis(1) };
        assert!(client.send("delta", &Delta { content: "one" }).await.is_ok());
        assert!(matches!(client.send("delta", &Delta { content: "two" }).await, Err(Interruption::Ended)));
        assert!(receiver.recv().await.is_some());
        assert!(client.send("delta", &Delta { content: "three" }).await.is_ok());
    }
}
