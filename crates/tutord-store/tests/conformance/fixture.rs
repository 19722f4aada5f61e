//! A migrated, empty store, and rows to begin with.

use std::ops::Deref;
use std::sync::Arc;

use testbed::Postgres;
use tutord_store::model::{Appended, Message, NewConversation, NewReply, NewUser, NewUserMessage, Role, Target, User};
use tutord_store::{Store, StoreOptions, Timestamp};

/// A store of the test's own.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    /// Its address, for a second store on the same rows.
    pub(crate) url: String,
    _directory: Option<tempfile::TempDir>,
}

impl Deref for Fixture {
    type Target = dyn Store;
    fn deref(&self) -> &Self::Target {
        self.store.as_ref()
    }
}

pub(crate) async fn sqlite() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("test.db").display());
    let store = open(&url).await;
    store.migrate().await.unwrap();
    Fixture { store, url, _directory: Some(directory) }
}

pub(crate) async fn postgres() -> Fixture {
    let postgres = Postgres::shared().await.unwrap();
    let migrate = async |url: String| {
        tutord_store::open(&url, &StoreOptions::default()).await?.migrate().await?;
        Ok(())
    };
    let url = postgres.database_like("tutord_store_template", migrate).await.unwrap();
    Fixture { store: open(&url).await, url, _directory: None }
}

pub(crate) async fn open(url: &str) -> Arc<dyn Store> {
    tutord_store::open(url, &StoreOptions::default()).await.unwrap()
}

pub(crate) fn new_user(email: &str) -> NewUser {
    NewUser {
        email: email.to_owned(),
        password_hash: "$argon2id$fake".to_owned(),
        name: "A Student".to_owned(),
        role: Role::Student,
        email_verified: true,
        created_at: Timestamp::now(),
    }
}

impl Fixture {
    pub(crate) async fn student(&self, name: &str) -> User {
        self.create_user(new_user(&format!("{name}@example.com"))).await.unwrap()
    }

    /// An empty conversation; its id.
    pub(crate) async fn conversation(&self, user_id: i64, title: &str) -> i64 {
        let new = NewConversation {
            user_id,
            title: title.to_owned(),
            context_type: tutord_store::model::ContextType::General,
            exercise_id: None,
        };
        self.create_conversation(new).await.unwrap().unwrap().id
    }

    /// A student's message in an existing conversation.
    pub(crate) async fn say(&self, user_id: i64, conversation_id: i64, content: &str) -> Message {
        stored(self.append_user_message(message(user_id, Target::Existing(conversation_id), content)).await.unwrap())
    }
}

pub(crate) fn message(user_id: i64, target: Target, content: &str) -> NewUserMessage {
    NewUserMessage { user_id, target, content: content.to_owned(), idempotency_key: None }
}

pub(crate) fn reply(user_id: i64, to: &Message, content: &str) -> NewReply {
    NewReply {
        user_id,
        conversation_id: to.conversation_id,
        reply_to: to.id,
        content: content.to_owned(),
        tokens_used: 7,
        model_used: "model".to_owned(),
        provider: "provider".to_owned(),
        finish_reason: "stop".to_owned(),
        cached: false,
        response_time_ms: 12,
    }
}

pub(crate) fn stored(appended: Appended) -> Message {
    match appended {
        Appended::Stored(message) => message,
        other => panic!("not stored: {other:?}"),
    }
}
