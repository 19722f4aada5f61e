//! A student's message and the tutor's reply.
//!
//! The message is committed before the model is asked, and no connection is held while it answers: a
//! model that fails or a process that dies costs the reply, never the message.

use std::time::Duration;

use tutord_store::Error;
use tutord_store::model::{Appended, Identity, Message, NewReply, NewUserMessage, StoredExchange, Target};

use super::prompt;
use super::service::no_conversation;
use super::wire::SendRequest;
use crate::app::App;
use crate::error::ApiError;
use crate::http::rate_limit::{Rule, Subject};
use crate::llm::{ChatRequest, LlmError, Provider};

/// A stored message of a student's that waits for its reply.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) user_id: i64,
    pub(super) message: Message,
}

/// Where an exchange stands once the student's message is known to be stored.
pub(super) enum Begun {
    /// The reply is still to come.
    Open(Question),
    /// A repeated request: the reply was stored before.
    Answered(Question, Message),
}

/// Stores the student's message, or recognises it by its idempotency key.
pub(super) async fn begin(app: &App, identity: &Identity, request: SendRequest) -> Result<Begun, ApiError> {
    limit(app, identity).await?;
    let target = match request.conversation_id {
        Some(id) => Target::Existing(id),
        None => Target::New { title: prompt::title_from(&request.message) },
    };
    let appended = app
        .store
        .append_user_message(NewUserMessage {
            user_id: identity.user_id,
            target,
            content: request.message,
            idempotency_key: request.idempotency_key,
        })
        .await?;
    match appended {
        Appended::Stored(stored) => Ok(Begun::Open(Question { user_id: identity.user_id, message: stored.message })),
        Appended::Repeated(exchange) => Ok(begun(identity.user_id, exchange)),
        Appended::NotFound => Err(no_conversation()),
    }
}

/// Takes up the newest message of a conversation again, where it has no reply.
pub(super) async fn resume(app: &App, identity: &Identity, conversation_id: i64) -> Result<Question, ApiError> {
    limit(app, identity).await?;
    let exchange = app.store.last_exchange(identity.user_id, conversation_id).await?.ok_or_else(no_conversation)?;
    match begun(identity.user_id, exchange) {
        Begun::Open(question) => Ok(question),
        Begun::Answered(..) => Err(answered()),
    }
}

fn begun(user_id: i64, exchange: StoredExchange) -> Begun {
    let question = Question { user_id, message: exchange.question };
    match exchange.reply {
        Some(reply) => Begun::Answered(question, reply),
        None => Begun::Open(question),
    }
}

async fn limit(app: &App, identity: &Identity) -> Result<(), ApiError> {
    app.limits.check(Rule::chat(identity.role), &Subject::User(identity.user_id)).await
}

pub(super) fn answered() -> ApiError {
    ApiError::conflict("the newest message of this conversation has its reply already")
}

impl Question {
    /// Asks the model and stores its reply.
    pub(super) async fn answer(self, app: &App) -> Result<Message, ApiError> {
        let outcome = async {
            let (provider, request) = self.prepare(app).await?;
            let reply = provider.complete(request).await.map_err(|error| unavailable(&error))?;
            let new = NewReply {
                content: reply.content,
                model_used: reply.model,
                tokens_used: tokens(reply.tokens_used),
                finish_reason: reply.finish_reason,
                response_time_ms: milliseconds(reply.response_time),
                cached: reply.cached,
                ..self.reply(provider.name())
            };
            match store(app, new).await? {
                Some(message) => Ok(message),
                None => self.stored(app).await,
            }
        };
        outcome.await.map_err(|error| self.explain(error))
    }

    /// The reply that another request for the same question stored first: whoever repeats a request
    /// whose reply is on its way is told that reply.
    async fn stored(&self, app: &App) -> Result<Message, ApiError> {
        let newest = app.store.last_exchange(self.user_id, self.message.conversation_id).await?;
        let own = newest.filter(|exchange| exchange.question.id == self.message.id);
        own.and_then(|exchange| exchange.reply).ok_or_else(answered)
    }

    /// The provider and what to ask it: one bounded read of the history, one of the student, one of the
    /// student's topics.
    pub(super) async fn prepare(&self, app: &App) -> Result<(std::sync::Arc<dyn Provider>, ChatRequest), ApiError> {
        let provider = app.llm.clone().ok_or_else(ApiError::llm_not_configured)?;
        let Message { conversation_id, position, .. } = self.message;
        let (student, skills, history) = tokio::try_join!(
            app.store.user(self.user_id),
            app.store.skill_levels(self.user_id),
            app.store.history(self.user_id, conversation_id, position, prompt::MAX_HISTORY),
        )?;
        let student = student.ok_or_else(ApiError::unauthenticated)?;
        if history.is_empty() {
            return Err(no_conversation());
        }
        let llm = &app.config.llm;
        // In tokens as they are estimated, of which the endpoint may count more.
        let context_tokens = u64::from(llm.context_tokens) * 100 / u64::from(provider.tokens_percent().max(100));
        let context_tokens = u32::try_from(context_tokens).unwrap_or(llm.context_tokens);
        Ok((
            provider,
            ChatRequest {
                messages: prompt::build(&student, &skills, &history, context_tokens),
                max_tokens: llm.max_reply_tokens,
                temperature: llm.temperature,
                student: Some(self.user_id),
            },
        ))
    }

    /// A reply to this question, still without what the model said.
    pub(super) fn reply(&self, provider: &str) -> NewReply {
        NewReply {
            user_id: self.user_id,
            conversation_id: self.message.conversation_id,
            reply_to: self.message.id,
            content: String::new(),
            tokens_used: 0,
            model_used: String::new(),
            provider: provider.to_owned(),
            finish_reason: String::new(),
            cached: false,
            response_time_ms: 0,
        }
    }

    /// Tells the client, with any failure, which message is safely stored.
    pub(super) fn explain(&self, error: ApiError) -> ApiError {
        error
            .with_detail("conversation_id", self.message.conversation_id)
            .with_detail("user_message_id", self.message.id)
    }
}

/// Stores a reply; `None` when the question has one already.
pub(super) async fn store(app: &App, mut reply: NewReply) -> Result<Option<Message>, ApiError> {
    // No database keeps the character U+0000; a model that writes it must not cost the reply.
    for text in [&mut reply.content, &mut reply.model_used, &mut reply.finish_reason] {
        if text.contains('\0') {
            *text = text.replace('\0', "\u{fffd}");
        }
    }
    match app.store.append_reply(reply).await {
        Ok(Some(stored)) => Ok(Some(stored.message)),
        // Deleted while the model answered.
        Ok(None) => Err(no_conversation()),
        Err(Error::Conflict(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the client is told of a model that failed; the operator reads the cause in the log.
pub(super) fn unavailable(error: &LlmError) -> ApiError {
    tracing::error!(%error, "the model gave no reply");
    ApiError::llm_unavailable("the tutor could not answer; your message is saved", error.retry_after())
}

pub(super) fn tokens(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
