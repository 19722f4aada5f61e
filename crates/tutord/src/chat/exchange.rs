//! A student's message and the tutor's reply.
//!
//! The message is committed before the request to the model, and no connection is held during that request: if the
//! model fails or the process dies, the reply is lost, but not the message.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;
use tutord_core::Error;
use tutord_core::model::{AppendOutcome, Identity, Message, MessageTarget, NewReply, NewUserMessage, StoredExchange};

use super::dto::SendRequest;
use super::in_progress::Turn;
use super::prompt;
use super::service::{self, no_conversation};
use super::state::ChatState;
use crate::http::admission::without_load;
use crate::http::error::ApiError;
use crate::http::rate_limit::{Rule, Subject};
use crate::llm::{ChatRequest, LlmError, Provider};

/// A student's stored message that waits for its reply.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) user_id: i64,
    pub(super) message: Message,
    /// The newest messages up to this one, newest first.
    history: Arc<[Message]>,
    /// Set if an incomplete reply is stored, which the next reply replaces.
    has_incomplete_reply: bool,
}

/// The outcome of storing a reply.
pub(super) enum Outcome {
    Stored(Message),
    /// Another request stored this reply, which is complete or longer.
    Superseded(Message),
}

/// The state of an exchange whose message is stored.
pub(super) enum Exchange {
    /// The reply is pending.
    Open(Question),
    /// A repeated request whose reply is already stored.
    Answered(Question, Message),
}

/// Stores the student's message, or recognises it by its idempotency key.
pub(super) async fn begin(state: &ChatState, identity: &Identity, request: SendRequest) -> Result<Exchange, ApiError> {
    limit(state, identity).await?;
    let (text, named) = (request.idempotency_key.as_ref().map(|_| request.message.clone()), request.conversation_id);
    let target = match request.conversation_id {
        Some(id) => MessageTarget::Existing(id),
        None => MessageTarget::New { title: prompt::title_from(&request.message) },
    };
    let appended = state
        .store
        .append_user_message(NewUserMessage {
            user_id: identity.user_id,
            target,
            content: request.message,
            idempotency_key: request.idempotency_key,
            history: prompt::MAX_HISTORY,
        })
        .await?;
    match appended {
        AppendOutcome::Stored(stored, history) => Ok(Exchange::Open(Question {
            user_id: identity.user_id,
            message: stored.message,
            history: history.into(),
            has_incomplete_reply: false,
        })),
        AppendOutcome::Repeated(exchange) if is_repetition(&exchange.question, text.as_deref(), named) => {
            Ok(exchange_of(identity.user_id, exchange))
        }
        AppendOutcome::Repeated(_) => Err(Error::KeyReused.into()),
        AppendOutcome::NotFound => Err(no_conversation()),
    }
}

/// Returns `true` if a request is a repetition of the one that stored this message. The conversation that a message
/// began may be named or not.
fn is_repetition(stored: &Message, text: Option<&str>, conversation: Option<i64>) -> bool {
    let is_there = conversation.map_or(stored.position == 1, |conversation| conversation == stored.conversation_id);
    text == Some(stored.content.as_str()) && is_there
}

/// Restarts the newest exchange of a conversation, unless its reply is complete.
pub(super) async fn resume(state: &ChatState, identity: &Identity, conversation_id: i64) -> Result<Exchange, ApiError> {
    limit(state, identity).await?;
    match state.store.last_exchange(identity.user_id, conversation_id, prompt::MAX_HISTORY).await? {
        Some(exchange) => Ok(exchange_of(identity.user_id, exchange)),
        None if service::exists(state, identity.user_id, conversation_id).await? => {
            Err(ApiError::conflict("this conversation has no message to reply to"))
        }
        None => Err(no_conversation()),
    }
}

fn exchange_of(user_id: i64, exchange: StoredExchange) -> Exchange {
    let has_incomplete_reply = exchange.reply.as_ref().is_some_and(Message::is_incomplete);
    let (message, history) = (exchange.question, exchange.history.into());
    let question = Question { user_id, message, history, has_incomplete_reply };
    match exchange.reply {
        Some(reply) if !has_incomplete_reply => Exchange::Answered(question, reply),
        _ => Exchange::Open(question),
    }
}

async fn limit(state: &ChatState, identity: &Identity) -> Result<(), ApiError> {
    state.limits.check(Rule::chat(identity.role), &Subject::User(identity.user_id)).await
}

pub(super) fn answered() -> ApiError {
    ApiError::conflict("the newest message of this conversation already has a reply")
}

impl Exchange {
    /// Returns the message and its reply. A client that disconnects finds the reply later.
    pub(super) async fn reply(self, state: &ChatState) -> Result<(i64, Message), ApiError> {
        let question = match self {
            Self::Answered(question, reply) => return Ok((question.message.id, reply)),
            Self::Open(question) => question,
        };
        let (id, failed, own_state) = (question.message.id, question.clone(), state.clone());
        let answering = querywatch::in_current_scope(async move { question.answer(&own_state).await });
        // The request waits for the model; the work of the task itself is short.
        let answered = without_load(state.background.spawn(answering.in_current_span())).await;
        let reply = answered.unwrap_or_else(|error| Err(failed.explain(ApiError::internal(&error))))?;
        Ok((id, reply))
    }
}

impl Question {
    /// Waits until no other request of this process generates a reply to this message. Returns the turn to do so, or
    /// the reply that another request stored meanwhile.
    pub(super) async fn turn(&mut self, state: &ChatState) -> Result<Result<Turn, Message>, ApiError> {
        let (turn, waited) = state.in_progress.turn(self.message.id).await;
        if waited && let Some(reply) = self.stored_reply(state).await? {
            if !reply.is_incomplete() {
                return Ok(Err(reply));
            }
            self.has_incomplete_reply = true;
        }
        Ok(Ok(turn))
    }

    /// Requests a reply from the model and stores it.
    async fn answer(mut self, state: &ChatState) -> Result<Message, ApiError> {
        let outcome = async {
            let _turn = match self.turn(state).await? {
                Ok(turn) => turn,
                Err(stored) => return Ok(stored),
            };
            let (provider, request) = self.prepare(state).await?;
            let reply = provider.complete(request).await.map_err(|error| unavailable(&error))?;
            let new = NewReply {
                content: reply.content.into(),
                model_used: reply.model,
                tokens_used: tokens(reply.tokens_used),
                finish_reason: reply.finish_reason,
                response_time_ms: milliseconds(reply.response_time),
                cached: reply.cached,
                ..self.reply(provider.endpoint().name())
            };
            // A repeated request gets the reply of the first one.
            match self.store(state, new).await? {
                Outcome::Stored(message) | Outcome::Superseded(message) => Ok(message),
            }
        };
        outcome.await.map_err(|error| self.explain(error))
    }

    /// Returns the provider and the request, from the history, one read of the student, and one of the student's
    /// topics.
    pub(super) async fn prepare(&self, state: &ChatState) -> Result<(Arc<dyn Provider>, ChatRequest), ApiError> {
        let provider = state.llm.provider.clone().ok_or_else(ApiError::llm_not_configured)?;
        let (student, skills) =
            tokio::try_join!(state.store.user(self.user_id), state.store.skill_levels(self.user_id))?;
        let student = student.ok_or_else(ApiError::unauthenticated)?;
        let llm = &state.llm.settings;
        let context_tokens = provider.endpoint().prompt_tokens(llm.context_tokens);
        let (messages, question_starts) = prompt::build(&student, &skills, &self.history, context_tokens);
        Ok((
            provider,
            ChatRequest {
                messages,
                max_tokens: llm.max_reply_tokens,
                temperature: llm.temperature,
                student: Some(self.user_id),
                question_starts,
            },
        ))
    }

    /// Returns a reply to this message, without the model's text.
    pub(super) fn reply(&self, provider: &str) -> NewReply {
        NewReply {
            user_id: self.user_id,
            conversation_id: self.message.conversation_id,
            reply_to: self.message.id,
            content: Arc::default(),
            tokens_used: 0,
            model_used: String::new(),
            provider: provider.to_owned(),
            finish_reason: String::new(),
            cached: false,
            response_time_ms: 0,
        }
    }

    /// Stores a reply, or replaces an incomplete one.
    pub(super) async fn store(&self, state: &ChatState, mut reply: NewReply) -> Result<Outcome, ApiError> {
        // PostgreSQL does not store U+0000; replace it instead of losing the reply.
        let visible = |text: &str| text.contains('\0').then(|| text.replace('\0', "\u{fffd}"));
        reply.content = visible(&reply.content).map_or(reply.content, Into::into);
        for text in [&mut reply.model_used, &mut reply.finish_reason] {
            *text = visible(text).unwrap_or_else(|| std::mem::take(text));
        }
        if !self.has_incomplete_reply {
            match state.store.append_reply(reply.clone()).await {
                Ok(Some(stored)) => return Ok(Outcome::Stored(stored.message)),
                // The conversation was deleted while the model replied.
                Ok(None) => return Err(no_conversation()),
                // Another request has stored a reply meanwhile, possibly an incomplete one.
                Err(Error::Conflict(_)) => {
                    let other = self.stored_reply(state).await?.ok_or_else(answered)?;
                    if !other.is_incomplete() {
                        return Ok(Outcome::Superseded(other));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        match state.store.replace_reply(reply).await? {
            Some(stored) => Ok(Outcome::Stored(stored.message)),
            None => Ok(Outcome::Superseded(self.stored_reply(state).await?.ok_or_else(answered)?)),
        }
    }

    /// Returns the reply that another request for the same message stored.
    async fn stored_reply(&self, state: &ChatState) -> Result<Option<Message>, ApiError> {
        let newest = state.store.last_exchange(self.user_id, self.message.conversation_id, 0).await?;
        let own = newest.filter(|exchange| exchange.question.id == self.message.id);
        Ok(own.and_then(|exchange| exchange.reply))
    }

    /// Adds the id of the stored message to an error.
    pub(super) fn explain(&self, error: ApiError) -> ApiError {
        error
            .with_detail("conversation_id", self.message.conversation_id)
            .with_detail("user_message_id", self.message.id)
    }
}

/// Returns the client's error for a failed model; the cause goes to the log.
pub(super) fn unavailable(error: &LlmError) -> ApiError {
    if let LlmError::Declined(_) = error {
        tracing::warn!(%error, "the model gave no reply");
        return ApiError::llm_declined("the tutor declined to answer this; your message is saved; please rephrase it");
    }
    tracing::error!(%error, "the model gave no reply");
    ApiError::llm_unavailable("the tutor could not answer; your message is saved", error.retry_after())
}

pub(super) fn tokens(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
