//! Conversations: the list, and changes of whole conversations.

use async_trait::async_trait;
use diesel::alias;
use diesel::dsl::{case_when, count_star, exists, select};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::{
    AppendOutcome, Conversation, ConversationPage, NewConversation, NewReply, NewUserMessage, Order, PREVIEW_CHARS,
    StoredExchange, StoredMessage,
};
use tutord_core::page::{Page, PageRequest, Position, counted};
use tutord_core::schema::{conversations, exercises};
use tutord_core::store::{Conversations, Loaded};
use tutord_core::text::head;
use tutord_core::{Error, Result, Timestamp};

use super::conversation_rows::{insert, own};
use super::rows::conversation_row;
use super::{Adapter, messages};
use crate::cached_statement::CachedStatement;

/// Counts the conversations of a student.
macro_rules! total {
    ($user_id:expr) => {{
        let all = alias!(conversations as all);
        all.filter(all.field(conversations::user_id).eq($user_id))
            .filter(all.field(conversations::deleted_at).is_null())
            .select(count_star())
    }};
}

#[async_trait]
impl Conversations for Adapter {
    async fn list_conversations(&self, user_id: i64, page: &PageRequest) -> Result<Loaded<Page<Conversation>>> {
        self.read(async |conn| {
            let own = conversations::user_id.eq(user_id).and(conversations::deleted_at.is_null());
            // One more row than requested shows whether the list continues.
            let mut rows = conversations::table
                .filter(own)
                .order((conversations::last_message_at.desc(), conversations::id.desc()))
                .select((conversation_row(), total!(user_id).single_value()))
                .limit(page.limit + 1)
                .into_boxed();
            match page.position {
                Position::Offset(offset) => rows = rows.offset(offset),
                Position::Cursor(cursor) => {
                    let (at, id) = cursor.key();
                    // The second condition implies the first, which lets the index seek.
                    rows = rows.filter(conversations::last_message_at.le(at)).filter(
                        conversations::last_message_at
                            .lt(at)
                            .or(conversations::last_message_at.eq(at).and(conversations::id.lt(id))),
                    );
                }
            }
            let (items, total) = counted(rows.load(conn).await?, page.position);
            let total = match total {
                Some(total) => total,
                None => total!(user_id).get_result(conn).await?,
            };
            Ok(Loaded::Fresh(Page::cut(items, total, page.limit, Conversation::cursor)))
        })
        .await
    }

    async fn naive_conversations(&self, user_id: i64, limit: i64) -> Result<Vec<Conversation>> {
        use tutord_core::schema::messages as rows;
        self.read(async |conn| {
            let mut found: Vec<Conversation> = conversations::table
                .filter(conversations::user_id.eq(user_id).and(conversations::deleted_at.is_null()))
                .order((conversations::last_message_at.desc(), conversations::id.desc()))
                .select(conversation_row())
                .limit(limit)
                .load(conn)
                .await?;
            for conversation in &mut found {
                let of_it = rows::table.filter(rows::conversation_id.eq(conversation.id));
                conversation.message_count = of_it.select(count_star()).get_result(conn).await?;
                let newest = of_it.order(rows::position.desc()).select(rows::content);
                let newest = newest.first::<String>(conn).await.optional()?;
                conversation.last_message_preview = newest.map(|text| head(&text, PREVIEW_CHARS).to_owned());
            }
            Ok(found)
        })
        .await
    }

    async fn conversation_page(
        &self,
        user_id: i64,
        id: i64,
        order: Order,
        page: &PageRequest,
    ) -> Result<Option<Loaded<ConversationPage>>> {
        self.read(async |conn| Ok(messages::page(conn, user_id, id, order, page).await?.map(Loaded::Fresh))).await
    }

    async fn create_conversation(&self, new: NewConversation) -> Result<Option<Conversation>> {
        self.write(async |conn| {
            if let Some(exercise_id) = new.exercise_id {
                let visible = exercises::table
                    .find(exercise_id)
                    .filter(exercises::owner_id.is_null().or(exercises::owner_id.eq(new.user_id)));
                if !select(exists(visible)).get_result::<bool>(conn).await? {
                    return Ok(None);
                }
            }
            Ok(Some(insert(conn, &new, Timestamp::now()).await?))
        })
        .await
    }

    async fn rename_conversation(&self, user_id: i64, id: i64, title: &str) -> Result<Option<Conversation>> {
        self.write(async |conn| {
            let now = Timestamp::now();
            let renamed = CachedStatement(
                diesel::update(own(user_id, id))
                    .set((
                        conversations::title.eq(title),
                        conversations::updated_at.eq(now),
                        // Without messages, the newest activity is the newest change.
                        conversations::last_message_at.eq(case_when(
                            conversations::message_count.gt(0),
                            conversations::last_message_at,
                        )
                        .otherwise(now)),
                    ))
                    .returning(conversation_row()),
            )
            .get_result(conn)
            .await
            .optional()?;
            Ok(renamed)
        })
        .await
    }

    async fn delete_conversation(&self, user_id: i64, id: i64) -> Result<bool> {
        self.write(async |conn| {
            let hidden =
                CachedStatement(diesel::update(own(user_id, id)).set(conversations::deleted_at.eq(Timestamp::now())))
                    .execute(conn)
                    .await?;
            Ok(hidden == 1)
        })
        .await
    }

    async fn append_user_message(&self, new: NewUserMessage) -> Result<AppendOutcome> {
        let appended = self.transaction(async |conn| messages::append_user_message(conn, &new).await).await;
        match (&appended, &new.idempotency_key) {
            // Another request has used the key, or there is nothing to append to.
            (Err(Error::Conflict(_)) | Ok(AppendOutcome::NotFound), Some(key)) => {
                let found =
                    self.read(async |conn| messages::repeated(conn, new.user_id, key, new.history).await).await?;
                Ok(found.unwrap_or(AppendOutcome::NotFound))
            }
            _ => appended,
        }
    }

    async fn append_reply(&self, new: NewReply) -> Result<Option<StoredMessage>> {
        self.transaction(async |conn| messages::append_reply(conn, &new).await).await
    }

    async fn replace_reply(&self, new: NewReply) -> Result<Option<StoredMessage>> {
        self.transaction(async |conn| messages::replace_reply(conn, &new).await).await
    }

    async fn last_exchange(&self, user_id: i64, id: i64, history: i64) -> Result<Option<StoredExchange>> {
        self.read(async |conn| messages::last_exchange(conn, user_id, id, history).await).await
    }
}
