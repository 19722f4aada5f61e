//! Messages: pages, appends, and the history for the model.

use diesel::alias;
use diesel::dsl::{case_when, exists};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text};
use diesel_async::RunQueryDsl;
use tutord_core::model::{
    AppendOutcome, ContextType, Conversation, ConversationPage, INCOMPLETE_REASONS, Message, MessageRole,
    MessageTarget, NewReply, NewUserMessage, Order, PREVIEW_CHARS, StoredExchange, StoredMessage, message_page,
};
use tutord_core::page::{PageRequest, Position};
use tutord_core::schema::{conversations, idempotency_keys, messages};
use tutord_core::sql_types::Instant;
use tutord_core::text::head;
use tutord_core::{Result, Timestamp};

use super::Conn;
use super::conversation_rows::own;
use super::rows::{conversation_row, message_row};
use crate::cached_statement::{CachedStatement, Optional};

diesel::define_sql_function! {
    /// Characters of a text.
    fn length(text: Text) -> diesel::sql_types::Integer;
}

/// Increments the message count of a conversation. The count is the position of the message, and the newest time its
/// own. The update locks the conversation until the transaction ends, so positions have no gaps and times never run
/// backward.
macro_rules! counted_in {
    ($user_id:expr, $conversation_id:expr, $content:expr) => {{
        let now = Timestamp::now();
        let later = case_when(conversations::last_message_at.gt(now), conversations::last_message_at).otherwise(now);
        CachedStatement(
            diesel::update(own($user_id, $conversation_id))
                .set((
                    conversations::message_count.eq(conversations::message_count + 1),
                    conversations::last_message_at.eq(later),
                    conversations::updated_at.eq(later),
                    conversations::last_message_preview.eq(head($content, PREVIEW_CHARS)),
                ))
                .returning(conversation_row()),
        )
    }};
}

/// Selects a conversation after `counted_in`, which leaves none without messages.
macro_rules! counted_conversation {
    ($user_id:expr, $id:expr) => {
        own($user_id, $id).filter(conversations::message_count.gt(0))
    };
}

/// Selects the newest messages of a conversation, newest first.
macro_rules! newest {
    ($user_id:expr, $id:expr, $limit:expr) => {
        messages::table
            .filter(messages::conversation_id.eq($id))
            .filter(exists(own($user_id, $id)))
            .order(messages::position.desc())
            .limit($limit)
            .select(message_row())
    };
}

/// A page of a conversation. Positions have no gaps, so every page is one range of the index on
/// (conversation, position): the cost of a page is the same at any depth, by offset and by cursor.
pub(super) async fn page(
    conn: &mut Conn,
    user_id: i64,
    id: i64,
    order: Order,
    page: &PageRequest,
) -> Result<Option<ConversationPage>> {
    let mut rows = messages::table
        .filter(messages::conversation_id.eq(id))
        .filter(exists(own(user_id, id)))
        .select(message_row())
        .limit(page.limit)
        .into_boxed();
    rows = match order {
        Order::Asc => rows.order(messages::position.asc()),
        Order::Desc => rows.order(messages::position.desc()),
    };
    // (low, high): the first and the last position of the page, if they can be computed in advance.
    let (low, high) = match (page.position, order) {
        (Position::Offset(offset), Order::Asc) => {
            (Some(offset.saturating_add(1)), Some(offset.saturating_add(page.limit)))
        }
        (Position::Offset(offset), Order::Desc) => {
            let newest = own(user_id, id).select(conversations::message_count - offset).single_value();
            rows = rows.filter(messages::position.nullable().le(newest));
            (None, None)
        }
        (Position::Cursor(cursor), order) => {
            let at = cursor.key().1;
            if (order == Order::Asc) == cursor.is_backward() {
                (Some(at.saturating_sub(page.limit)), Some(at - 1))
            } else {
                (Some(at.saturating_add(1)), Some(at.saturating_add(page.limit)))
            }
        }
    };
    if let (Some(low), Some(high)) = (low, high) {
        rows = rows.filter(messages::position.between(low, high));
    }
    let conversation = own(user_id, id).select(conversation_row());
    let (conversation, items) = pipelined!(conn, conversation.load::<Conversation>, rows.load::<Message>);
    Ok(conversation.into_iter().next().map(|conversation| {
        let messages = message_page(items, conversation.message_count, order);
        ConversationPage { conversation, messages }
    }))
}

/// Stores a student's message, and its conversation if it is new. Returns `NotFound` also if nothing was stored because of
/// an earlier request with the same key, unless that is a conflict.
pub(super) async fn append_user_message(conn: &mut Conn, new: &NewUserMessage) -> Result<AppendOutcome> {
    match &new.target {
        MessageTarget::Existing(id) => append_to(conn, new, *id).await,
        MessageTarget::New { title } => begin_conversation(conn, new, title).await,
    }
}

async fn append_to(conn: &mut Conn, new: &NewUserMessage, id: i64) -> Result<AppendOutcome> {
    let counted = counted_in!(new.user_id, id, &new.content);
    let message = diesel::insert_into(messages::table)
        .values(counted_conversation!(new.user_id, id).select((
            conversations::id,
            conversations::message_count,
            MessageRole::User.into_sql::<Text>(),
            (&new.content).into_sql::<Text>(),
            conversations::last_message_at,
        )))
        .into_columns((
            messages::conversation_id,
            messages::position,
            messages::role,
            messages::content,
            messages::created_at,
        ))
        .returning(message_row());
    let message = CachedStatement(message);
    let key = new.idempotency_key.as_ref().map(|key| {
        // The message that was just stored: the transaction has locked its conversation.
        let newest = counted_conversation!(new.user_id, id).inner_join(messages::table.on(
            messages::conversation_id.eq(conversations::id).and(messages::position.eq(conversations::message_count)),
        ));
        let row = newest.select((
            conversations::user_id,
            key.into_sql::<Text>(),
            conversations::id,
            messages::id,
            Timestamp::now().into_sql::<Instant>(),
        ));
        CachedStatement(diesel::insert_into(idempotency_keys::table).values(row).into_columns((
            idempotency_keys::user_id,
            idempotency_keys::key,
            idempotency_keys::conversation_id,
            idempotency_keys::message_id,
            idempotency_keys::created_at,
        )))
    });
    let key = Optional(key);
    // A statement of its own sees all that was committed while the first one waited for the row.
    let history = newest!(new.user_id, id, new.history);
    let (conversation, message, _, history) = committed!(
        conn,
        counted.load::<Conversation>,
        message.load::<Message>,
        key.execute,
        history.load::<Message>,
    );
    Ok(match conversation.into_iter().zip(message).next() {
        Some((conversation, message)) => AppendOutcome::Stored(StoredMessage { message, conversation }, history),
        None => AppendOutcome::NotFound,
    })
}

async fn begin_conversation(conn: &mut Conn, new: &NewUserMessage, title: &str) -> Result<AppendOutcome> {
    let now = Timestamp::now();
    let conversation = diesel::insert_into(conversations::table)
        .values((
            conversations::user_id.eq(new.user_id),
            conversations::title.eq(title),
            conversations::context_type.eq(ContextType::General),
            conversations::message_count.eq(1),
            conversations::last_message_preview.eq(head(&new.content, PREVIEW_CHARS)),
            conversations::last_message_at.eq(now),
            conversations::created_at.eq(now),
            conversations::updated_at.eq(now),
        ))
        .returning(conversation_row());
    let message = diesel::insert_into(messages::table)
        .values((
            messages::conversation_id.eq(last_id!("conversations")),
            messages::position.eq(1),
            messages::role.eq(MessageRole::User),
            messages::content.eq(&new.content),
            messages::created_at.eq(now),
        ))
        .returning(message_row());
    let message = CachedStatement(message);
    let key = new.idempotency_key.as_ref().map(|key| {
        CachedStatement(diesel::insert_into(idempotency_keys::table).values((
            idempotency_keys::user_id.eq(new.user_id),
            idempotency_keys::key.eq(key),
            idempotency_keys::conversation_id.eq(last_id!("conversations")),
            idempotency_keys::message_id.eq(last_id!("messages")),
            idempotency_keys::created_at.eq(now),
        )))
    });
    let key = Optional(key);
    let (conversation, message, _) =
        committed!(conn, conversation.load::<Conversation>, message.load::<Message>, key.execute);
    Ok(match conversation.into_iter().zip(message).next() {
        Some((conversation, message)) => {
            let history = if new.history > 0 { vec![message.clone()] } else { Vec::new() };
            AppendOutcome::Stored(StoredMessage { message, conversation }, history)
        }
        None => AppendOutcome::NotFound,
    })
}

/// Stores a tutor's reply.
pub(super) async fn append_reply(conn: &mut Conn, new: &NewReply) -> Result<Option<StoredMessage>> {
    let counted = counted_in!(new.user_id, new.conversation_id, &new.content);
    let message = diesel::insert_into(messages::table)
        .values(counted_conversation!(new.user_id, new.conversation_id).select((
            conversations::id,
            conversations::message_count,
            MessageRole::Assistant.into_sql::<Text>(),
            (&*new.content).into_sql::<Text>(),
            new.tokens_used.into_sql::<Nullable<Integer>>(),
            (&new.model_used).into_sql::<Nullable<Text>>(),
            (&new.provider).into_sql::<Nullable<Text>>(),
            (&new.finish_reason).into_sql::<Nullable<Text>>(),
            new.cached.into_sql::<Bool>(),
            new.response_time_ms.into_sql::<Nullable<Integer>>(),
            new.reply_to.into_sql::<Nullable<BigInt>>(),
            conversations::last_message_at,
        )))
        .into_columns((
            messages::conversation_id,
            messages::position,
            messages::role,
            messages::content,
            messages::tokens_used,
            messages::model_used,
            messages::provider,
            messages::finish_reason,
            messages::cached,
            messages::response_time_ms,
            messages::reply_to,
            messages::created_at,
        ))
        .returning(message_row());
    let message = CachedStatement(message);
    let (conversation, message) = committed!(conn, counted.load::<Conversation>, message.load::<Message>);
    Ok(conversation
        .into_iter()
        .zip(message)
        .next()
        .map(|(conversation, message)| StoredMessage { message, conversation }))
}

/// Replaces an incomplete reply by a complete or longer one.
pub(super) async fn replace_reply(conn: &mut Conn, new: &NewReply) -> Result<Option<StoredMessage>> {
    let present = messages::table
        .filter(messages::reply_to.eq(new.reply_to))
        .filter(messages::finish_reason.eq_any(INCOMPLETE_REASONS))
        .filter(exists(own(new.user_id, new.conversation_id)));
    let characters = i32::try_from(new.content.chars().count()).unwrap_or(i32::MAX);
    let longest = if INCOMPLETE_REASONS.contains(&new.finish_reason.as_str()) { characters } else { i32::MAX };
    let replaced = CachedStatement(
        diesel::update(present.filter(length(messages::content).lt(longest)))
            .set((
                messages::content.eq(&*new.content),
                messages::tokens_used.eq(new.tokens_used),
                messages::model_used.eq(&new.model_used),
                messages::provider.eq(&new.provider),
                messages::finish_reason.eq(&new.finish_reason),
                messages::cached.eq(new.cached),
                messages::response_time_ms.eq(new.response_time_ms),
            ))
            .returning(message_row()),
    );
    let Some(message) = replaced.get_result::<Message>(conn).await.optional()? else { return Ok(None) };
    // The preview is of the newest message.
    let is_older = conversations::message_count.ne(message.position);
    let preview = case_when(is_older, conversations::last_message_preview).otherwise(head(&new.content, PREVIEW_CHARS));
    let conversation = CachedStatement(
        diesel::update(own(new.user_id, new.conversation_id))
            .set((conversations::last_message_preview.eq(preview), conversations::updated_at.eq(Timestamp::now())))
            .returning(conversation_row()),
    );
    let conversation = committed!(conn, conversation.load::<Conversation>);
    Ok(conversation.into_iter().next().map(|conversation| StoredMessage { message, conversation }))
}

/// Returns the exchange of an earlier request with this idempotency key.
pub(super) async fn repeated(conn: &mut Conn, user_id: i64, key: &str, history: i64) -> Result<Option<AppendOutcome>> {
    let stored = || idempotency_keys::table.find((user_id, key));
    let id = || stored().select(idempotency_keys::message_id).single_value();
    let (this, its) = alias!(messages as this, messages as its);
    let key = stored().select(idempotency_keys::message_id);
    let question = messages::table
        .filter(messages::id.nullable().eq(id()))
        .filter(exists(
            conversations::table
                .filter(conversations::id.eq(messages::conversation_id))
                .filter(conversations::user_id.eq(user_id))
                .filter(conversations::deleted_at.is_null()),
        ))
        .select(message_row());
    let reply = messages::table.filter(messages::reply_to.eq(id())).select(message_row());
    let conversation =
        this.filter(this.field(messages::id).nullable().eq(id())).select(this.field(messages::conversation_id));
    let position = its.filter(its.field(messages::id).nullable().eq(id())).select(its.field(messages::position));
    let newest = messages::table
        .filter(messages::conversation_id.nullable().eq(conversation.single_value()))
        .filter(messages::position.nullable().le(position.single_value()))
        .order(messages::position.desc())
        .limit(history)
        .select(message_row());
    let (key, question, reply, newest) = pipelined!(
        conn,
        key.load::<i64>,
        question.load::<Message>,
        reply.load::<Message>,
        newest.load::<Message>,
    );
    if key.is_empty() {
        return Ok(None);
    }
    Ok(Some(match exchange(question, reply, newest) {
        Some(exchange) => AppendOutcome::Repeated(exchange),
        // The conversation was deleted meanwhile.
        None => AppendOutcome::NotFound,
    }))
}

/// Combines the rows of an exchange, of which a newer message may have been committed between their statements.
fn exchange(question: Vec<Message>, reply: Vec<Message>, mut history: Vec<Message>) -> Option<StoredExchange> {
    let question = question.into_iter().next()?;
    let reply = reply.into_iter().find(|reply| reply.reply_to == Some(question.id));
    history.retain(|message| message.position <= question.position);
    Some(StoredExchange { question, reply, history })
}

/// Returns the newest message of the student, its reply, and the newest messages up to the student's.
pub(super) async fn last_exchange(
    conn: &mut Conn,
    user_id: i64,
    id: i64,
    history: i64,
) -> Result<Option<StoredExchange>> {
    let (this, its) = alias!(messages as this, messages as its);
    let question = newest!(user_id, id, 1).filter(messages::role.eq(MessageRole::User));
    let newest_id = this
        .filter(this.field(messages::conversation_id).eq(id))
        .filter(this.field(messages::role).eq(MessageRole::User))
        .order(this.field(messages::position).desc())
        .select(this.field(messages::id))
        .limit(1);
    let reply = messages::table
        .filter(messages::reply_to.eq(newest_id.single_value()))
        .filter(exists(own(user_id, id)))
        .select(message_row());
    let newest_position = its
        .filter(its.field(messages::conversation_id).eq(id))
        .filter(its.field(messages::role).eq(MessageRole::User))
        .order(its.field(messages::position).desc())
        .select(its.field(messages::position))
        .limit(1);
    let newest = newest!(user_id, id, history).filter(messages::position.nullable().le(newest_position.single_value()));
    let (question, reply, newest) =
        pipelined!(conn, question.load::<Message>, reply.load::<Message>, newest.load::<Message>);
    Ok(exchange(question, reply, newest))
}
