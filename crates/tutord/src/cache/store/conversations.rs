//! The cached store: conversations and messages.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join;
use readthrough::{Key, Namespace, Snapshot};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tutord_core::Result;
use tutord_core::model::{
    AppendOutcome, Conversation, ConversationPage, MessageTarget, NewConversation, NewReply, NewUserMessage, Order,
    StoredExchange, StoredMessage,
};
use tutord_core::page::{Page, PageRequest, Position};
use tutord_core::store::{Conversations, Loaded};

use super::super::effects::{CacheEffect, conversation_group};
use super::super::namespaces::Namespaces;
use super::PageSizes;
use super::{CachedStore, Replacement, empty_page, fresh, page_member, read_error};

/// The first pages that a student reads after a message, with the default page sizes.
struct FirstPages {
    user: i64,
    sizes: PageSizes,
    namespaces: Arc<Namespaces>,
    list: Option<Snapshot<Page<Conversation>>>,
    messages: Option<Snapshot<ConversationPage>>,
}

impl FirstPages {
    /// Returns the keys that a stored message invalidates, and the new values of the first pages.
    fn after(self, stored: &StoredMessage, begun: bool) -> (Vec<CacheEffect>, Vec<Replacement>) {
        let (user, conversation) = (self.user, stored.conversation.id);
        let list = replacement(&self.namespaces.conversations, self.list, |list| {
            list.after(&stored.conversation, begun, self.sizes.conversations)
        });
        let messages = replacement(&self.namespaces.messages, self.messages, |page| {
            page.after(stored, Order::default(), self.sizes.messages)
        });
        let mut effects = Vec::new();
        if list.is_none() {
            effects.push(CacheEffect::List { user });
        }
        if messages.is_none() {
            effects.push(CacheEffect::Messages { user, conversation });
        }
        (effects, [list, messages].into_iter().flatten().collect())
    }
}

/// Replaces a cached value with the result of `after`, if the value is cached and `after` returns one.
fn replacement<V>(
    namespace: &Namespace<V>,
    snapshot: Option<Snapshot<V>>,
    after: impl FnOnce(&V) -> Option<V>,
) -> Option<Replacement>
where
    V: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let snapshot = snapshot?;
    let value = after(snapshot.value())?;
    let namespace = namespace.clone();
    Some(Box::pin(async move { namespace.replace_if_unchanged(snapshot, value).await }))
}

impl CachedStore {
    /// The cached first pages before a message is stored.
    async fn first_pages(&self, user: i64, conversation: Option<i64>) -> FirstPages {
        let namespaces = Arc::clone(&self.namespaces);
        let list = list_key(user, &PageRequest::first(self.pages.conversations));
        let list = namespaces.conversations.snapshot(&list);
        let messages = async {
            let key = messages_key(user, conversation?, Order::default(), self.pages.messages);
            namespaces.messages.snapshot(&key).await
        };
        let (list, messages) = join(list, messages).await;
        FirstPages { user, sizes: self.pages, namespaces, list, messages }
    }
}

fn list_key(user: i64, page: &PageRequest) -> Key {
    Key::in_group(user, page_member(page))
}

fn messages_key(user: i64, conversation: i64, order: Order, limit: i64) -> Key {
    Key::in_group(conversation_group(user, conversation), format_args!("{order:?}:{limit}"))
}

#[async_trait]
impl Conversations for CachedStore {
    async fn list_conversations(&self, user_id: i64, page: &PageRequest) -> Result<Loaded<Page<Conversation>>> {
        let key = list_key(user_id, page);
        let load = async || self.store.list_conversations(user_id, page).await.map(|found| fresh(Some(found)));
        let found = self.namespaces.conversations.get_or_load(&key, load).await.map_err(read_error)?;
        Ok(found.map_or_else(|| Loaded::Fresh(empty_page()), |page| self.loaded(page)))
    }

    // Uncached, because the route demonstrates the cost of its queries.
    async fn naive_conversations(&self, user_id: i64, limit: i64) -> Result<Vec<Conversation>> {
        self.store.naive_conversations(user_id, limit).await
    }

    async fn conversation_page(
        &self,
        user_id: i64,
        id: i64,
        order: Order,
        page: &PageRequest,
    ) -> Result<Option<Loaded<ConversationPage>>> {
        // Only first and last pages are cached, because deeper pages are read once.
        if page.position != Position::Offset(0) {
            return self.store.conversation_page(user_id, id, order, page).await;
        }
        let key = messages_key(user_id, id, order, page.limit);
        let load = async || self.store.conversation_page(user_id, id, order, page).await.map(fresh);
        let found = self.namespaces.messages.get_or_load(&key, load).await.map_err(read_error)?;
        Ok(found.map(|page| self.loaded(page)))
    }

    async fn create_conversation(&self, new: NewConversation) -> Result<Option<Conversation>> {
        let (store, user) = (Arc::clone(&self.store), new.user_id);
        self.write(async move { store.create_conversation(new).await }, move |created| {
            let conversation = created.iter().flatten().map(|conversation| conversation.id).next().unwrap_or(0);
            vec![CacheEffect::Conversation { user, conversation }]
        })
        .await
    }

    async fn rename_conversation(&self, user_id: i64, id: i64, title: &str) -> Result<Option<Conversation>> {
        let (store, title) = (Arc::clone(&self.store), title.to_owned());
        let write = async move { store.rename_conversation(user_id, id, &title).await };
        self.write(write, move |_| vec![CacheEffect::Conversation { user: user_id, conversation: id }]).await
    }

    async fn delete_conversation(&self, user_id: i64, id: i64) -> Result<bool> {
        let store = Arc::clone(&self.store);
        let write = async move { store.delete_conversation(user_id, id).await };
        self.write(write, move |_| vec![CacheEffect::Conversation { user: user_id, conversation: id }]).await
    }

    async fn append_user_message(&self, new: NewUserMessage) -> Result<AppendOutcome> {
        let (store, user) = (Arc::clone(&self.store), new.user_id);
        let known = match new.target {
            MessageTarget::Existing(id) => Some(id),
            MessageTarget::New { .. } => None,
        };
        let pages = self.first_pages(user, known).await;
        self.write_and_replace(async move { store.append_user_message(new).await }, move |appended| match appended {
            Ok(AppendOutcome::Stored(stored, _)) => pages.after(stored, known.is_none()),
            Ok(AppendOutcome::Repeated(_) | AppendOutcome::NotFound) => (Vec::new(), Vec::new()),
            Err(_) => (vec![CacheEffect::Conversation { user, conversation: known.unwrap_or(0) }], Vec::new()),
        })
        .await
    }

    async fn append_reply(&self, new: NewReply) -> Result<Option<StoredMessage>> {
        let (store, user, conversation) = (Arc::clone(&self.store), new.user_id, new.conversation_id);
        let pages = self.first_pages(user, Some(conversation)).await;
        self.write_and_replace(async move { store.append_reply(new).await }, move |appended| match appended {
            Ok(Some(stored)) => pages.after(stored, false),
            Ok(None) | Err(_) => (vec![CacheEffect::Conversation { user, conversation }], Vec::new()),
        })
        .await
    }

    async fn replace_reply(&self, new: NewReply) -> Result<Option<StoredMessage>> {
        let (store, user, conversation) = (Arc::clone(&self.store), new.user_id, new.conversation_id);
        let write = async move { store.replace_reply(new).await };
        self.write(write, move |_| vec![CacheEffect::Conversation { user, conversation }]).await
    }

    async fn last_exchange(&self, user_id: i64, id: i64, history: i64) -> Result<Option<StoredExchange>> {
        self.store.last_exchange(user_id, id, history).await
    }
}
