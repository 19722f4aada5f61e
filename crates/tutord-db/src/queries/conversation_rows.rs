//! Rows of conversations, as the queries of conversations and of messages select and insert them.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::Timestamp;
use tutord_core::model::{Conversation, NewConversation};
use tutord_core::schema::conversations;

use super::Conn;
use super::rows::conversation_row;

/// Selects a student's conversation, unless it is deleted.
#[diesel::dsl::auto_type]
pub(super) fn own(user_id: i64, id: i64) -> _ {
    conversations::table
        .filter(conversations::id.eq(id))
        .filter(conversations::user_id.eq(user_id))
        .filter(conversations::deleted_at.is_null())
}

/// Inserts a conversation without messages.
pub(super) async fn insert(conn: &mut Conn, new: &NewConversation, now: Timestamp) -> QueryResult<Conversation> {
    diesel::insert_into(conversations::table)
        .values((
            conversations::user_id.eq(new.user_id),
            conversations::title.eq(&new.title),
            conversations::context_type.eq(new.context_type),
            conversations::exercise_id.eq(new.exercise_id),
            conversations::last_message_at.eq(now),
            conversations::created_at.eq(now),
            conversations::updated_at.eq(now),
        ))
        .returning(conversation_row())
        .get_result(conn)
        .await
}
