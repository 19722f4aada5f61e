//! Messages: pages, appends, and the history for the model.

use diesel::dsl::{case_when, exists};
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use tutord_core::model::{
    AppendOutcome, Conversation, ConversationPage, INCOMPLETE_REASONS, Message, MessageRole, MessageTarget, NewReply,
    NewUserMessage, Order, PREVIEW_CHARS, StoredExchange, StoredMessage, message_page,
};
use tutord_core::page::{PageRequest, Position};
use tutord_core::schema::{conversations, idempotency_keys, messages};
use tutord_core::text::head;
use tutord_core::{Result, Timestamp};

use super::Conn;
use super::conversation_rows::{insert, new_conversation, own};
use super::rows::{conversation_row, message_row};
use crate::cached_statement::CachedStatement;

diesel::define_sql_function! {
    /// Characters of a text.
    fn length(text: Text) -> diesel::sql_types::Integer;
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

/// Stores a student's message, and its conversation if it is new.
pub(super) async fn append_user_message(conn: &mut Conn, new: &NewUserMessage) -> Result<AppendOutcome> {
    if let Some(key) = &new.idempotency_key
        && let Some(appended) = repeated(conn, new.user_id, key).await?
    {
        return Ok(appended);
    }
    let now = Timestamp::now();
    let conversation_id = match &new.target {
        MessageTarget::Existing(id) => *id,
        MessageTarget::New { title } => insert(conn, &new_conversation(new.user_id, title.clone()), now).await?.id,
    };
    let Some(conversation) = count_in(conn, new.user_id, conversation_id, &new.content).await? else {
        return Ok(AppendOutcome::NotFound);
    };
    let message = diesel::insert_into(messages::table)
        .values((
            messages::conversation_id.eq(conversation_id),
            messages::position.eq(conversation.message_count),
            messages::role.eq(MessageRole::User),
            messages::content.eq(&new.content),
            messages::created_at.eq(conversation.last_message_at),
        ))
        .returning(message_row())
        .get_result(conn)
        .await?;
    if let Some(key) = &new.idempotency_key {
        diesel::insert_into(idempotency_keys::table)
            .values((
                idempotency_keys::user_id.eq(new.user_id),
                idempotency_keys::key.eq(key),
                idempotency_keys::conversation_id.eq(conversation_id),
                idempotency_keys::message_id.eq(message.id),
                idempotency_keys::created_at.eq(now),
            ))
            .execute(conn)
            .await?;
    }
    Ok(AppendOutcome::Stored(StoredMessage { message, conversation }))
}

/// Stores a tutor's reply.
pub(super) async fn append_reply(conn: &mut Conn, new: &NewReply) -> Result<Option<StoredMessage>> {
    let Some(conversation) = count_in(conn, new.user_id, new.conversation_id, &new.content).await? else {
        return Ok(None);
    };
    let message = diesel::insert_into(messages::table)
        .values((
            messages::conversation_id.eq(new.conversation_id),
            messages::position.eq(conversation.message_count),
            messages::role.eq(MessageRole::Assistant),
            messages::content.eq(&*new.content),
            messages::tokens_used.eq(new.tokens_used),
            messages::model_used.eq(&new.model_used),
            messages::provider.eq(&new.provider),
            messages::finish_reason.eq(&new.finish_reason),
            messages::cached.eq(new.cached),
            messages::response_time_ms.eq(new.response_time_ms),
            messages::reply_to.eq(new.reply_to),
            messages::created_at.eq(conversation.last_message_at),
        ))
        .returning(message_row())
        .get_result(conn)
        .await?;
    Ok(Some(StoredMessage { message, conversation }))
}

/// Replaces an incomplete reply by a complete or longer one.
pub(super) async fn replace_reply(conn: &mut Conn, new: &NewReply) -> Result<Option<StoredMessage>> {
    let present = messages::table
        .filter(messages::reply_to.eq(new.reply_to))
        .filter(messages::finish_reason.eq_any(INCOMPLETE_REASONS))
        .filter(exists(own(new.user_id, new.conversation_id)));
    let characters = i32::try_from(new.content.chars().count()).unwrap_or(i32::MAX);
    let longest = if INCOMPLETE_REASONS.contains(&new.finish_reason.as_str()) { characters } else { i32::MAX };
    let message = diesel::update(present.filter(length(messages::content).lt(longest)))
        .set((
            messages::content.eq(&*new.content),
            messages::tokens_used.eq(new.tokens_used),
            messages::model_used.eq(&new.model_used),
            messages::provider.eq(&new.provider),
            messages::finish_reason.eq(&new.finish_reason),
            messages::cached.eq(new.cached),
            messages::response_time_ms.eq(new.response_time_ms),
        ))
        .returning(message_row())
        .get_result::<Message>(conn)
        .await
        .optional()?;
    let Some(message) = message else { return Ok(None) };
    // The preview is of the newest message.
    let is_older = conversations::message_count.ne(message.position);
    let preview = case_when(is_older, conversations::last_message_preview).otherwise(head(&new.content, PREVIEW_CHARS));
    let conversation = diesel::update(own(new.user_id, new.conversation_id))
        .set((conversations::last_message_preview.eq(preview), conversations::updated_at.eq(Timestamp::now())))
        .returning(conversation_row())
        .get_result(conn)
        .await?;
    Ok(Some(StoredMessage { message, conversation }))
}

/// Increments the message count of a conversation. The count is the position of the message, and the newest time its
/// own. The update locks the conversation until the transaction ends, so positions have no gaps and times never run
/// backward.
async fn count_in(
    conn: &mut Conn,
    user_id: i64,
    conversation_id: i64,
    content: &str,
) -> QueryResult<Option<Conversation>> {
    let now = Timestamp::now();
    let later = case_when(conversations::last_message_at.gt(now), conversations::last_message_at).otherwise(now);
    let preview = head(content, PREVIEW_CHARS);
    CachedStatement(
        diesel::update(own(user_id, conversation_id))
            .set((
                conversations::message_count.eq(conversations::message_count + 1),
                conversations::last_message_at.eq(later),
                conversations::updated_at.eq(later),
                conversations::last_message_preview.eq(preview),
            ))
            .returning(conversation_row()),
    )
    .get_result(conn)
    .await
    .optional()
}

/// Returns the message stored by an earlier request with this idempotency key.
pub(super) async fn repeated(conn: &mut Conn, user_id: i64, key: &str) -> Result<Option<AppendOutcome>> {
    let stored: Option<(i64, i64)> = idempotency_keys::table
        .find((user_id, key))
        .select((idempotency_keys::conversation_id, idempotency_keys::message_id))
        .first(conn)
        .await
        .optional()?;
    let Some((conversation_id, message_id)) = stored else { return Ok(None) };
    let question = messages::table
        .find(message_id)
        .filter(exists(own(user_id, conversation_id)))
        .select(message_row())
        .first(conn)
        .await
        .optional()?;
    Ok(Some(match question {
        Some(question) => AppendOutcome::Repeated(exchange(conn, question).await?),
        // The conversation was deleted meanwhile.
        None => AppendOutcome::NotFound,
    }))
}

async fn exchange(conn: &mut Conn, question: Message) -> Result<StoredExchange> {
    let reply = messages::table
        .filter(messages::reply_to.eq(question.id))
        .select(message_row())
        .first(conn)
        .await
        .optional()?;
    Ok(StoredExchange { question, reply })
}

/// Selects messages from `position` down, newest first, at most `limit`.
pub(super) async fn up_to(conn: &mut Conn, user_id: i64, id: i64, position: i64, limit: i64) -> Result<Vec<Message>> {
    let rows = messages::table
        .filter(messages::conversation_id.eq(id))
        .filter(exists(own(user_id, id)))
        .filter(messages::position.le(position))
        .order(messages::position.desc())
        .limit(limit)
        .select(message_row())
        .load(conn)
        .await?;
    Ok(rows)
}

/// Returns the newest message of the student and its reply.
pub(super) async fn last_exchange(conn: &mut Conn, user_id: i64, id: i64) -> Result<Option<StoredExchange>> {
    let question = messages::table
        .filter(messages::conversation_id.eq(id))
        .filter(exists(own(user_id, id)))
        .filter(messages::role.eq(MessageRole::User))
        .order(messages::position.desc())
        .select(message_row())
        .first(conn)
        .await
        .optional()?;
    Ok(match question {
        Some(question) => Some(exchange(conn, question).await?),
        None => None,
    })
}
