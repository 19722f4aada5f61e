//! A migrated, empty store, and rows to begin with.

use std::ops::Deref;
use std::sync::Arc;

use diesel::connection::SimpleConnection as _;
use diesel::sql_types::Text;
use diesel::sqlite::SqliteConnection;
use diesel::{Connection as _, QueryableByName, RunQueryDsl as _};
use testbed::Postgres;
use tokio_postgres::Client;
use tutord_core::model::{
    AppendOutcome, LearningProfile, Message, MessageTarget, NewConversation, NewReply, NewUser, NewUserMessage, Role,
    SkillLevel, User,
};
use tutord_core::{Database, Timestamp};
use tutord_db::DatabaseOptions;

/// A store of the test's own.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Database>,
    /// Its address, for a second store on the same rows.
    pub(crate) url: String,
    _directory: Option<tempfile::TempDir>,
}

impl Deref for Fixture {
    type Target = dyn Database;
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
        tutord_db::open(&url, &DatabaseOptions::default()).await?.migrate().await?;
        Ok(())
    };
    let url = postgres.database_like("tutord_db_template", migrate).await.unwrap();
    Fixture { store: open(&url).await, url, _directory: None }
}

pub(crate) async fn open(url: &str) -> Arc<dyn Database> {
    tutord_db::open(url, &DatabaseOptions::default()).await.unwrap()
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

pub(crate) fn learning_profile() -> LearningProfile {
    LearningProfile {
        programming_language: "rust".to_owned(),
        skill_level: SkillLevel::Beginner,
        career_goals: "Write a compiler".to_owned(),
        learning_style: "reading".to_owned(),
        time_commitment: "weekends".to_owned(),
    }
}

/// Runs a call and counts its statements.
pub(crate) async fn count<T>(call: impl Future<Output = T>) -> (T, u32) {
    let (outcome, report) = querywatch::Scope::unwatched().run(call).await;
    (outcome, report.statements)
}

/// One row of [`Fixture::lines`].
#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

impl Fixture {
    /// A connection to the store's PostgreSQL database that is not the store's.
    pub(crate) async fn client(&self) -> Client {
        let name = self.url.rsplit('/').next().unwrap();
        Postgres::shared().await.unwrap().client(name).await.unwrap()
    }

    /// Runs statements behind the store's back.
    pub(crate) async fn execute(&self, sql: &str) {
        match self.url.strip_prefix("sqlite://") {
            Some(path) => SqliteConnection::establish(path).unwrap().batch_execute(sql).unwrap(),
            None => self.client().await.batch_execute(sql).await.unwrap(),
        }
    }

    /// Returns the result of a query that selects one text named `line`.
    pub(crate) async fn lines(&self, sql: &str) -> Vec<String> {
        match self.url.strip_prefix("sqlite://") {
            Some(path) => {
                let rows = diesel::sql_query(sql).load(&mut SqliteConnection::establish(path).unwrap()).unwrap();
                rows.into_iter().map(|Line { line }| line).collect()
            }
            None => self.client().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect(),
        }
    }

    /// Returns the number of rows of a table.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.lines(&format!("SELECT CAST(count(*) AS TEXT) AS line FROM {table}")).await[0].parse().unwrap()
    }

    pub(crate) async fn student(&self, name: &str) -> User {
        self.create_user(new_user(&format!("{name}@example.com"))).await.unwrap()
    }

    /// An empty conversation; its id.
    pub(crate) async fn conversation(&self, user_id: i64, title: &str) -> i64 {
        let new = NewConversation {
            user_id,
            title: title.to_owned(),
            context_type: tutord_core::model::ContextType::General,
            exercise_id: None,
        };
        self.create_conversation(new).await.unwrap().unwrap().id
    }

    /// A student's message in an existing conversation.
    pub(crate) async fn say(&self, user_id: i64, conversation_id: i64, content: &str) -> Message {
        stored(
            self.append_user_message(message(user_id, MessageTarget::Existing(conversation_id), content))
                .await
                .unwrap(),
        )
    }
}

pub(crate) fn message(user_id: i64, target: MessageTarget, content: &str) -> NewUserMessage {
    NewUserMessage { user_id, target, content: content.to_owned(), idempotency_key: None, history: 0 }
}

pub(crate) fn reply(user_id: i64, to: &Message, content: &str) -> NewReply {
    NewReply {
        user_id,
        conversation_id: to.conversation_id,
        reply_to: to.id,
        content: content.into(),
        tokens_used: 7,
        model_used: "model".to_owned(),
        provider: "provider".to_owned(),
        finish_reason: "stop".to_owned(),
        cached: false,
        response_time_ms: 12,
    }
}

pub(crate) fn stored(appended: AppendOutcome) -> Message {
    match appended {
        AppendOutcome::Stored(stored, _) => stored.message,
        other => panic!("not stored: {other:?}"),
    }
}
