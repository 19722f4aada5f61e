//! Conversations: the list, and changes of whole conversations.

use async_trait::async_trait;
use diesel::alias;
use diesel::dsl::{case_when, count_star};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::RunQueryDsl;
use tutord_core::model::{
    AppendOutcome, Conversation, ConversationPage, NewConversation, NewReply, NewUserMessage, Order, PREVIEW_CHARS,
    StoredExchange, StoredMessage,
};
use tutord_core::page::{Page, PageRequest, Position};
use tutord_core::schema::{conversations, exercises};
use tutord_core::sql_types::Instant;
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

/// Selects the conversations of a student, newest activity first.
macro_rules! list {
    ($user_id:expr, $columns:expr, $limit:expr) => {
        conversations::table
            .filter(conversations::user_id.eq($user_id).and(conversations::deleted_at.is_null()))
            .order((conversations::last_message_at.desc(), conversations::id.desc()))
            .select($columns)
            .limit($limit)
    };
}

#[async_trait]
impl Conversations for Adapter {
    async fn list_conversations(&self, user_id: i64, page: &PageRequest) -> Result<Loaded<Page<Conversation>>> {
        self.read(async |conn| {
            // One more row than requested shows whether the list continues.
            let limit = page.limit + 1;
            let (items, total) = match page.position {
                // Without rows the total is 0.
                Position::Offset(0) => {
                    let columns = (conversation_row(), total!(user_id).single_value());
                    let rows: Vec<(Conversation, Option<i64>)> = list!(user_id, columns, limit).load(conn).await?;
                    let total = <[_]>::first(&rows).and_then(|(_, total)| *total);
                    (rows.into_iter().map(|(conversation, _)| conversation).collect(), total)
                }
                position => {
                    let mut rows = list!(user_id, conversation_row(), limit).into_boxed();
                    match position {
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
                    let total = total!(user_id);
                    let (rows, total) = pipelined!(conn, rows.load::<Conversation>, total.load::<i64>);
                    (rows, total.into_iter().next())
                }
            };
            Ok(Loaded::Fresh(Page::cut(items, total.unwrap_or(0), page.limit, Conversation::cursor)))
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
            let now = Timestamp::now();
            let Some(exercise_id) = new.exercise_id else {
                return Ok(Some(insert(conn, &new, now).await?));
            };
            let visible = exercises::table
                .find(exercise_id)
                .filter(exercises::owner_id.is_null().or(exercises::owner_id.eq(new.user_id)))
                .select((
                    new.user_id.into_sql::<BigInt>(),
                    (&new.title).into_sql::<Text>(),
                    new.context_type.into_sql::<Text>(),
                    exercises::id.nullable(),
                    now.into_sql::<Instant>(),
                    now.into_sql::<Instant>(),
                    now.into_sql::<Instant>(),
                ));
            let created = CachedStatement(
                diesel::insert_into(conversations::table)
                    .values(visible)
                    .into_columns((
                        conversations::user_id,
                        conversations::title,
                        conversations::context_type,
                        conversations::exercise_id,
                        conversations::last_message_at,
                        conversations::created_at,
                        conversations::updated_at,
                    ))
                    .returning(conversation_row()),
            );
            Ok(created.get_result(conn).await.optional()?)
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
