//! Conversations and messages.

use std::sync::Arc;

use async_trait::async_trait;
use readthrough::Key;
use tutord_store::Result;
use tutord_store::model::{
    Appended, Conversation, ConversationPage, Message, NewConversation, NewReply, NewUserMessage, Order,
    StoredExchange, Target,
};
use tutord_store::page::{Page, PageRequest, Position};
use tutord_store::store::Conversations;

use super::super::writes::{Write, conversation_group};
use super::{CachedStore, none, owned, page_member};

#[async_trait]
impl Conversations for CachedStore {
    async fn list_conversations(&self, user_id: i64, page: &PageRequest) -> Result<Arc<Page<Conversation>>> {
        let key = Key::in_group(user_id, page_member(page));
        let load = async || self.store.list_conversations(user_id, page).await.map(|found| owned(Some(found)));
        Ok(self.namespaces.conversations.get_or_load(&key, load).await?.unwrap_or_else(|| Arc::new(none())))
    }

    // What it costs is what it is for.
    async fn naive_conversations(&self, user_id: i64, limit: i64) -> Result<Vec<Conversation>> {
        self.store.naive_conversations(user_id, limit).await
    }

    async fn conversation_page(
        &self,
        user_id: i64,
        id: i64,
        order: Order,
        page: &PageRequest,
    ) -> Result<Option<Arc<ConversationPage>>> {
        // Deeper pages are read once.
        if page.position != Position::Offset(0) {
            return self.store.conversation_page(user_id, id, order, page).await;
        }
        let key = Key::in_group(conversation_group(user_id, id), format_args!("{order:?}:{}", page.limit));
        let load = async || self.store.conversation_page(user_id, id, order, page).await.map(owned);
        self.namespaces.messages.get_or_load(&key, load).await
    }

    async fn create_conversation(&self, new: NewConversation) -> Result<Option<Conversation>> {
        let (store, user) = (Arc::clone(&self.store), new.user_id);
        self.write(async move { store.create_conversation(new).await }, move |created| {
            let conversation = created.iter().flatten().map(|conversation| conversation.id).next().unwrap_or(0);
            vec![Write::Conversation { user, conversation }]
        })
        .await
    }

    async fn rename_conversation(&self, user_id: i64, id: i64, title: &str) -> Result<Option<Conversation>> {
        let (store, title) = (Arc::clone(&self.store), title.to_owned());
        let write = async move { store.rename_conversation(user_id, id, &title).await };
        self.write(write, move |_| vec![Write::Conversation { user: user_id, conversation: id }]).await
    }

    async fn delete_conversation(&self, user_id: i64, id: i64) -> Result<bool> {
        let store = Arc::clone(&self.store);
        let write = async move { store.delete_conversation(user_id, id).await };
        self.write(write, move |_| vec![Write::Conversation { user: user_id, conversation: id }]).await
    }

    async fn append_user_message(&self, new: NewUserMessage) -> Result<Appended> {
        let (store, user) = (Arc::clone(&self.store), new.user_id);
        let known = match new.target {
            Target::Existing(id) => id,
            Target::New { .. } => 0,
        };
        self.write(async move { store.append_user_message(new).await }, move |appended| {
            let conversation = match appended {
                Ok(Appended::Stored(message)) => message.conversation_id,
                Ok(Appended::Repeated(_) | Appended::NotFound) => return Vec::new(),
                Err(_) => known,
            };
            vec![Write::Conversation { user, conversation }]
        })
        .await
    }

    async fn append_reply(&self, new: NewReply) -> Result<Option<Message>> {
        let store = Arc::clone(&self.store);
        let written = Write::Conversation { user: new.user_id, conversation: new.conversation_id };
        self.write(async move { store.append_reply(new).await }, move |_| vec![written]).await
    }

    async fn history(&self, user_id: i64, id: i64, position: i64, limit: i64) -> Result<Vec<Message>> {
        self.store.history(user_id, id, position, limit).await
    }

    async fn last_exchange(&self, user_id: i64, id: i64) -> Result<Option<StoredExchange>> {
        self.store.last_exchange(user_id, id).await
    }
}
