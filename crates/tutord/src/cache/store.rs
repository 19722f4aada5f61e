//! The database with the cache before it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use readthrough::{Cache, Invalidation, Key};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;
use tutord_store::model::change::{Change, ChangeKind};
use tutord_store::model::progress::{
    Activity, Board, LeaderboardEntry, Neighbourhood, ProgressOverview, TopicSkill, starts_on, utc_day,
};
use tutord_store::model::{
    Appended, Assigned, Candidate, CatalogueLoaded, Choice, Completion, Conversation, ConversationPage, Credentials,
    Daily, Difficulty, EmailTokenPurpose, Exercise, ExerciseStatus, Graded, Grading, HintTaken, HistoryItem, Identity,
    LearningProfile, Message, Metric, Moment, NewAchievement, NewConversation, NewEmailToken, NewExercise, NewReply,
    NewSessionTokens, NewUser, NewUserMessage, Order, Period, Rotation, StoredExchange, StoredSubmission, Target,
    TokenHash, Transition, User, UserChanges,
};
use tutord_store::page::{Cursor, Page, PageRequest, Position};
use tutord_store::seed::SeedPlan;
use tutord_store::store::{
    Administration, ChangeFeed, Conversations, EmailTokens, Exercises, Outbox, PoolStatus, Progress, Replica,
    ServerStatement, Sessions, Users,
};
use tutord_store::{LocalDate, Result, Store, Timestamp};

use super::namespaces::{Namespaces, OwnExercises, OwnProgress, TokenOwner};
use super::writes::{LEADERBOARDS, Write, conversation_group, flushed, noted, own_exercise};
use crate::config::CacheConfig;

/// The most changes that are acknowledged with one statement.
const ACKNOWLEDGED: i64 = 1_000;
/// What is warmed: exercises, and entries of each leaderboard (the size of a page unless asked otherwise).
const WARM_EXERCISES: i64 = 100;
const WARM_ENTRIES: i64 = 20;

/// A [`Store`] whose frequent reads are cached and whose writes make what they change unusable.
pub struct CachedStore {
    store: Arc<dyn Store>,
    cache: Cache,
    namespaces: Arc<Namespaces>,
    /// Writes that have begun and are not yet invalidated, since the last acknowledgement.
    begun: Mutex<TaskTracker>,
    /// Whether there is something to acknowledge.
    written: AtomicBool,
}

impl CachedStore {
    /// Puts a cache before a database.
    pub fn new(store: Arc<dyn Store>, cache: Cache, config: &CacheConfig) -> Self {
        let namespaces = Arc::new(Namespaces::open(&cache, config));
        Self { store, cache, namespaces, begun: Mutex::default(), written: AtomicBool::new(false) }
    }

    /// Writes, and then makes unusable what `writes` finds in the outcome, or in the failure: one that comes from a
    /// time-out or a broken connection may have been committed. In a task of its own, so that a client who goes
    /// away can't come between the two.
    async fn write<T: Send + 'static>(
        &self,
        write: impl Future<Output = Result<T>> + Send + 'static,
        writes: impl FnOnce(&Result<T>) -> Vec<Write> + Send + 'static,
    ) -> Result<T> {
        let (cache, namespaces) = (self.cache.clone(), Arc::clone(&self.namespaces));
        let work = querywatch::carry(async move {
            let outcome = write.await;
            // Deferred or complete: no read of this process finds the old value.
            let _ = invalidate(&cache, &namespaces, &writes(&outcome)).await;
            outcome
        });
        let task = {
            let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
            self.written.store(true, Ordering::Release);
            begun.spawn(work.in_current_span())
        };
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels it.
                Err(error) => Err(tutord_store::Error::Unavailable(error.to_string())),
            },
        }
    }

    /// Reads what will be asked for first: exercises of the catalogue, and the first pages of leaderboards. Returns
    /// how many values these are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn warm(&self) -> Result<usize> {
        if !self.cache.is_enabled() {
            return Ok(0);
        }
        let exercises = self.store.catalogue_exercises(WARM_EXERCISES).await?;
        let keys: Vec<Key> = exercises.iter().map(|exercise| Key::new(exercise.id)).collect();
        let load = async |places: Vec<usize>| {
            Ok::<_, tutord_store::Error>(places.into_iter().map(|place| exercises.get(place).cloned()).collect())
        };
        self.namespaces.exercises.get_many_or_load(&keys, load).await?;
        let today = utc_day(Timestamp::now());
        let mut warmed = keys.len();
        for metric in Metric::ALL {
            for period in [Period::All, Period::Weekly, Period::Monthly] {
                let board =
                    Board { metric: *metric, period, starts_on: starts_on(period, today), language: String::new() };
                self.leaderboard(&board, &PageRequest::first(WARM_ENTRIES)).await?;
                warmed += 1;
            }
        }
        Ok(warmed)
    }

    /// Makes unusable what others have changed; whether Redis has been told of all of it.
    pub(super) async fn apply(&self, changes: &[Change]) -> bool {
        let mut writes: Vec<Write> = Vec::new();
        for write in changes.iter().map(noted) {
            if !writes.contains(&write) {
                writes.push(write);
            }
        }
        invalidate(&self.cache, &self.namespaces, &writes).await
    }

    /// Acknowledges the changes that this process has made and invalidated, so that nobody else acts on them.
    ///
    /// What is noted when this begins was written by writes that had begun before: when all of these have ended and
    /// Redis is owed nothing, all of it is invalidated.
    pub(super) async fn acknowledge(&self) -> Result<()> {
        if !self.written.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let outcome = loop {
            let ids = match self.store.own_changes(ACKNOWLEDGED).await {
                Ok(ids) if !ids.is_empty() => ids,
                other => break other.map(drop),
            };
            let begun = {
                let mut current = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut *current)
            };
            begun.close();
            begun.wait().await;
            if self.cache.link().is_none_or(|link| !link.up) {
                // Left to whoever follows.
                return Ok(());
            }
            if let Err(error) = self.store.acknowledge_changes(&ids).await {
                break Err(error);
            }
        };
        if outcome.is_err() {
            self.written.store(true, Ordering::Release);
        }
        outcome
    }
}

/// Makes unusable what the table says; whether Redis has been told of all of it.
async fn invalidate(cache: &Cache, namespaces: &Namespaces, writes: &[Write]) -> bool {
    let targets: Vec<_> = writes.iter().flat_map(|write| namespaces.targets(*write)).collect();
    let mut told = targets.is_empty() || cache.invalidate(targets).await == Invalidation::Complete;
    for namespace in writes.iter().flat_map(|write| flushed(*write)) {
        // Their names are those that were opened.
        told &= matches!(cache.flush(namespace).await, Ok(Invalidation::Complete));
    }
    told
}

/// The value behind what the cache gave.
fn owned<V: Clone>(found: Option<Arc<V>>) -> Option<V> {
    found.map(Arc::unwrap_or_clone)
}

#[async_trait]
impl Users for CachedStore {
    async fn create_user(&self, new: NewUser) -> Result<User> {
        let store = Arc::clone(&self.store);
        // Its id may have been asked for before.
        self.write(async move { store.create_user(new).await }, |created| {
            created.iter().map(|user| Write::Profile { user: user.id }).collect()
        })
        .await
    }

    async fn user(&self, id: i64) -> Result<Option<Arc<User>>> {
        let load = async || self.store.user(id).await.map(owned);
        self.namespaces.profiles.get_or_load(&Key::new(id), load).await
    }

    async fn credentials(&self, email: &str) -> Result<Option<Credentials>> {
        self.store.credentials(email).await
    }

    async fn update_user(&self, id: i64, changes: UserChanges) -> Result<Option<User>> {
        let store = Arc::clone(&self.store);
        let written = match &changes.name {
            Some(_) => Write::Name { user: id },
            None => Write::Profile { user: id },
        };
        self.write(async move { store.update_user(id, changes).await }, move |_| vec![written]).await
    }

    async fn complete_onboarding(&self, id: i64, profile: LearningProfile) -> Result<Option<User>> {
        let store = Arc::clone(&self.store);
        let write = async move { store.complete_onboarding(id, profile).await };
        self.write(write, move |_| vec![Write::Profile { user: id }]).await
    }
}

#[async_trait]
impl Sessions for CachedStore {
    async fn create_session(&self, user_id: i64, tokens: NewSessionTokens) -> Result<i64> {
        let store = Arc::clone(&self.store);
        // The profile shows the time of the log-in.
        let write = async move { store.create_session(user_id, tokens).await };
        self.write(write, move |_| vec![Write::Profile { user: user_id }]).await
    }

    async fn identity(&self, access: &TokenHash) -> Result<Option<Identity>> {
        let key = Key::new(URL_SAFE_NO_PAD.encode(access));
        let owner = async || {
            let found = self.store.identity(access).await?;
            Ok::<_, tutord_store::Error>(found.map(|found| TokenOwner {
                session_id: found.session_id,
                user_id: found.user_id,
                expires_at: found.expires_at,
            }))
        };
        if !self.cache.is_enabled() {
            return self.store.identity(access).await;
        }
        let Some(owner) = self.namespaces.tokens.get_or_load(&key, owner).await? else { return Ok(None) };
        let TokenOwner { session_id, user_id, expires_at } = *owner;
        let Some(user) = self.user(user_id).await? else { return Ok(None) };
        // An expired token says nothing of its session: its row may be gone before the session ends.
        if expires_at > Timestamp::now() {
            let session = Key::in_group(user_id, session_id);
            let live = async || Ok::<_, tutord_store::Error>(self.store.identity(access).await?.map(|_| ()));
            if self.namespaces.sessions.get_or_load(&session, live).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(Identity {
            session_id,
            user_id,
            role: user.role,
            email_verified: user.email_verified,
            is_active: user.is_active,
            expires_at,
        }))
    }

    async fn rotate_session(&self, refresh: &TokenHash, successors: NewSessionTokens) -> Result<Rotation> {
        let (store, refresh) = (Arc::clone(&self.store), *refresh);
        self.write(async move { store.rotate_session(&refresh, successors).await }, |rotation| match rotation {
            Ok(Rotation::Reused { user_id, .. }) => vec![Write::Session { user: *user_id }],
            Ok(_) => Vec::new(),
            // It may have been committed, and nobody knows whose session it was.
            Err(_) => vec![Write::Any(ChangeKind::Session)],
        })
        .await
    }

    async fn revoke_session(&self, user_id: i64, session_id: i64) -> Result<()> {
        let store = Arc::clone(&self.store);
        let write = async move { store.revoke_session(user_id, session_id).await };
        self.write(write, move |_| vec![Write::Session { user: user_id }]).await
    }

    async fn revoke_session_of(&self, refresh: &TokenHash) -> Result<Option<i64>> {
        let (store, refresh) = (Arc::clone(&self.store), *refresh);
        self.write(async move { store.revoke_session_of(&refresh).await }, |user| match user {
            Ok(Some(user)) => vec![Write::Session { user: *user }],
            Ok(None) => Vec::new(),
            Err(_) => vec![Write::Any(ChangeKind::Session)],
        })
        .await
    }

    async fn revoke_sessions(&self, user_id: i64) -> Result<()> {
        let store = Arc::clone(&self.store);
        let write = async move { store.revoke_sessions(user_id).await };
        self.write(write, move |_| vec![Write::Session { user: user_id }]).await
    }
}

#[async_trait]
impl EmailTokens for CachedStore {
    async fn create_email_token(&self, token: NewEmailToken) -> Result<()> {
        self.store.create_email_token(token).await
    }

    async fn email_token_owner(&self, hash: &TokenHash, purpose: EmailTokenPurpose) -> Result<Option<Credentials>> {
        self.store.email_token_owner(hash, purpose).await
    }

    async fn verify_email(&self, hash: &TokenHash) -> Result<Option<User>> {
        let (store, hash) = (Arc::clone(&self.store), *hash);
        self.write(async move { store.verify_email(&hash).await }, |user| match user {
            Ok(Some(user)) => vec![Write::Profile { user: user.id }],
            Ok(None) => Vec::new(),
            Err(_) => vec![Write::Any(ChangeKind::Profile)],
        })
        .await
    }

    async fn reset_password(&self, hash: &TokenHash, password_hash: &str) -> Result<Option<i64>> {
        let (store, hash, password_hash) = (Arc::clone(&self.store), *hash, password_hash.to_owned());
        self.write(async move { store.reset_password(&hash, &password_hash).await }, |user| match user {
            Ok(Some(user)) => vec![Write::Session { user: *user }, Write::Profile { user: *user }],
            Ok(None) => Vec::new(),
            Err(_) => vec![Write::Any(ChangeKind::Session), Write::Any(ChangeKind::Profile)],
        })
        .await
    }
}

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

#[async_trait]
impl Exercises for CachedStore {
    async fn load_catalogue(
        &self,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<CatalogueLoaded> {
        let (store, exercises, achievements) = (Arc::clone(&self.store), exercises.to_vec(), achievements.to_vec());
        self.write(async move { store.load_catalogue(&exercises, &achievements).await }, |loaded| match loaded {
            Ok(loaded) if loaded.created + loaded.updated == 0 => Vec::new(),
            _ => vec![Write::Catalogue],
        })
        .await
    }

    async fn catalogue_exercises(&self, limit: i64) -> Result<Vec<Exercise>> {
        self.store.catalogue_exercises(limit).await
    }

    async fn exercise(&self, user_id: i64, id: i64) -> Result<Option<Arc<Exercise>>> {
        // Whether there is one of the catalogue is the same for all students; one that was generated is not.
        let load = async || {
            let found = owned(self.store.exercise(user_id, id).await?);
            Ok::<_, tutord_store::Error>(found.filter(|exercise| !exercise.generated_by_ai))
        };
        if let Some(found) = self.namespaces.exercises.get_or_load(&Key::new(id), load).await? {
            return Ok(Some(found));
        }
        let load = async || self.store.exercise(user_id, id).await.map(owned);
        self.namespaces.own_exercises.get_or_load(&own_exercise(user_id, id), load).await
    }

    async fn daily_exercise(&self, user_id: i64, day: LocalDate) -> Result<Option<Assigned>> {
        let key = Key::in_group(user_id, format_args!("daily:{day}"));
        let load = async || {
            let found = self.store.daily_exercise(user_id, day).await?;
            Ok::<_, tutord_store::Error>(found.map(|assigned| OwnExercises::Daily(Box::new(assigned))))
        };
        match owned(self.namespaces.exercise_lists.get_or_load(&key, load).await?) {
            Some(OwnExercises::Daily(assigned)) => Ok(Some(*assigned)),
            _ => Ok(None),
        }
    }

    async fn due_exercise(&self, user_id: i64, day: LocalDate) -> Result<Option<i64>> {
        self.store.due_exercise(user_id, day).await
    }

    async fn daily_candidates(&self, user_id: i64, choice: &Choice, limit: i64) -> Result<Vec<Candidate>> {
        self.store.daily_candidates(user_id, choice, limit).await
    }

    async fn assign_daily(&self, user_id: i64, day: LocalDate, chosen: &Daily) -> Result<Option<(Assigned, bool)>> {
        let (store, chosen) = (Arc::clone(&self.store), chosen.clone());
        self.write(async move { store.assign_daily(user_id, day, &chosen).await }, move |assigned| {
            let exercise = assigned.iter().flatten().map(|((exercise, _), _)| exercise.id).next().unwrap_or(0);
            vec![Write::Exercise { user: user_id, exercise }]
        })
        .await
    }

    async fn create_exercise(&self, user_id: i64, new: &NewExercise) -> Result<Assigned> {
        let (store, new) = (Arc::clone(&self.store), new.clone());
        self.write(async move { store.create_exercise(user_id, &new).await }, move |created| {
            let exercise = created.iter().map(|(exercise, _)| exercise.id).next().unwrap_or(0);
            vec![Write::Exercise { user: user_id, exercise }]
        })
        .await
    }

    async fn exercise_history(
        &self,
        user_id: i64,
        status: Option<ExerciseStatus>,
        page: &PageRequest,
    ) -> Result<Page<HistoryItem>> {
        let status_name = status.map_or("all", ExerciseStatus::as_str);
        let key = Key::in_group(user_id, format_args!("{status_name}:{}", page_member(page)));
        let load = async || {
            let found = self.store.exercise_history(user_id, status, page).await?;
            Ok::<_, tutord_store::Error>(Some(OwnExercises::Page(found)))
        };
        match owned(self.namespaces.exercise_lists.get_or_load(&key, load).await?) {
            Some(OwnExercises::Page(found)) => Ok(found),
            _ => self.store.exercise_history(user_id, status, page).await,
        }
    }

    async fn history_before(&self, user_id: i64, cursor: Option<Cursor>, limit: i64) -> Result<Vec<HistoryItem>> {
        self.store.history_before(user_id, cursor, limit).await
    }

    async fn ended_exercises(&self, user_id: i64, limit: i64) -> Result<Vec<HistoryItem>> {
        let key = Key::in_group(user_id, format_args!("ended:{limit}"));
        let load = async || {
            let found = self.store.ended_exercises(user_id, limit).await?;
            Ok::<_, tutord_store::Error>(Some(OwnExercises::Ended(found)))
        };
        match owned(self.namespaces.exercise_lists.get_or_load(&key, load).await?) {
            Some(OwnExercises::Ended(found)) => Ok(found),
            _ => self.store.ended_exercises(user_id, limit).await,
        }
    }

    async fn take_hint(&self, user_id: i64, exercise_id: i64, at: Timestamp) -> Result<Transition<Option<HintTaken>>> {
        let store = Arc::clone(&self.store);
        let write = async move { store.take_hint(user_id, exercise_id, at).await };
        self.write(write, move |_| vec![Write::Exercise { user: user_id, exercise: exercise_id }]).await
    }

    async fn submit_solution(
        &self,
        user_id: i64,
        exercise_id: i64,
        solution: &str,
        time_spent_seconds: Option<i32>,
        at: Timestamp,
    ) -> Result<Transition<StoredSubmission>> {
        let (store, solution) = (Arc::clone(&self.store), solution.to_owned());
        let write = async move { store.submit_solution(user_id, exercise_id, &solution, time_spent_seconds, at).await };
        self.write(write, move |_| vec![Write::Exercise { user: user_id, exercise: exercise_id }]).await
    }

    async fn grade_submission(
        &self,
        user_id: i64,
        submission: &StoredSubmission,
        grading: &Grading,
        moment: Moment,
    ) -> Result<Transition<Graded>> {
        let (store, submission, grading) = (Arc::clone(&self.store), submission.clone(), grading.clone());
        let written = Write::Completion { user: user_id, exercise: submission.exercise.id };
        let write = async move { store.grade_submission(user_id, &submission, &grading, moment).await };
        self.write(write, move |_| vec![written]).await
    }

    async fn complete_exercise(
        &self,
        user_id: i64,
        exercise_id: i64,
        time_spent_seconds: Option<i32>,
        moment: Moment,
    ) -> Result<Transition<Completion>> {
        let store = Arc::clone(&self.store);
        let write = async move { store.complete_exercise(user_id, exercise_id, time_spent_seconds, moment).await };
        self.write(write, move |_| vec![Write::Completion { user: user_id, exercise: exercise_id }]).await
    }

    async fn skip_exercise(&self, user_id: i64, exercise_id: i64, moment: Moment) -> Result<Transition<()>> {
        let store = Arc::clone(&self.store);
        let write = async move { store.skip_exercise(user_id, exercise_id, moment).await };
        self.write(write, move |_| vec![Write::Exercise { user: user_id, exercise: exercise_id }]).await
    }

    async fn exercise_difficulty(&self, user_id: i64) -> Result<Option<Difficulty>> {
        self.store.exercise_difficulty(user_id).await
    }

    async fn set_exercise_difficulty(&self, user_id: i64, difficulty: Difficulty) -> Result<()> {
        let store = Arc::clone(&self.store);
        // No cached value holds it. As a write it is acknowledged, so that nobody else takes the profile for changed.
        self.write(async move { store.set_exercise_difficulty(user_id, difficulty).await }, |_| Vec::new()).await
    }
}

impl CachedStore {
    /// One answer about a student's progress.
    async fn own_progress<L>(
        &self,
        user_id: i64,
        member: impl std::fmt::Display + Send,
        load: impl FnOnce() -> L + Send,
    ) -> Result<Option<OwnProgress>>
    where
        L: Future<Output = Result<Option<OwnProgress>>> + Send,
    {
        Ok(owned(self.namespaces.progress.get_or_load(&Key::in_group(user_id, member), load).await?))
    }
}

#[async_trait]
impl Progress for CachedStore {
    async fn progress(&self, user_id: i64) -> Result<Option<ProgressOverview>> {
        let load = async || Ok(self.store.progress(user_id).await?.map(|found| OwnProgress::Overview(Box::new(found))));
        match self.own_progress(user_id, "overview", load).await? {
            Some(OwnProgress::Overview(found)) => Ok(Some(*found)),
            _ => Ok(None),
        }
    }

    async fn activity_of_all_time(&self, user_id: i64) -> Result<Option<Activity>> {
        let load = async || {
            Ok(self.store.activity_of_all_time(user_id).await?.map(|found| OwnProgress::AllTime(Box::new(found))))
        };
        match self.own_progress(user_id, "all", load).await? {
            Some(OwnProgress::AllTime(found)) => Ok(Some(*found)),
            _ => Ok(None),
        }
    }

    async fn activity_by_day(&self, user_id: i64, from: LocalDate, to: LocalDate) -> Result<Vec<Activity>> {
        let load = async || Ok(Some(OwnProgress::Days(self.store.activity_by_day(user_id, from, to).await?)));
        match self.own_progress(user_id, format!("{from}:{to}"), load).await? {
            Some(OwnProgress::Days(found)) => Ok(found),
            _ => Ok(Vec::new()),
        }
    }

    async fn newest_activity(&self, user_id: i64) -> Result<Option<Activity>> {
        let load =
            async || Ok(self.store.newest_activity(user_id).await?.map(|found| OwnProgress::Newest(Box::new(found))));
        match self.own_progress(user_id, "newest", load).await? {
            Some(OwnProgress::Newest(found)) => Ok(Some(*found)),
            _ => Ok(None),
        }
    }

    async fn skill_levels(&self, user_id: i64) -> Result<Vec<TopicSkill>> {
        let load = async || Ok(Some(OwnProgress::Skills(self.store.skill_levels(user_id).await?)));
        match self.own_progress(user_id, "skills", load).await? {
            Some(OwnProgress::Skills(found)) => Ok(found),
            _ => Ok(Vec::new()),
        }
    }

    async fn skill_level(&self, user_id: i64, topic: &str) -> Result<Option<TopicSkill>> {
        self.store.skill_level(user_id, topic).await
    }

    async fn leaderboard(&self, board: &Board, page: &PageRequest) -> Result<Page<LeaderboardEntry>> {
        let Board { metric, period, starts_on, language } = board;
        let member = format!("{metric}:{period}:{starts_on}:{language}:{}", page_member(page));
        let load = async || self.store.leaderboard(board, page).await.map(Some);
        let key = Key::in_group(LEADERBOARDS, member);
        Ok(self.namespaces.leaderboards.get_or_load(&key, load).await?.map_or_else(none, Arc::unwrap_or_clone))
    }

    async fn leaderboard_around(&self, board: &Board, user_id: i64, neighbours: i64) -> Result<Neighbourhood> {
        self.store.leaderboard_around(board, user_id, neighbours).await
    }

    async fn set_leaderboard_opt_out(&self, user_id: i64, opted_out: bool) -> Result<()> {
        let store = Arc::clone(&self.store);
        let write = async move { store.set_leaderboard_opt_out(user_id, opted_out).await };
        self.write(write, |_| vec![Write::Leaderboards]).await
    }

    // Ranks are the same before and after.
    async fn fold_leaderboards(&self, batch: i64) -> Result<usize> {
        self.store.fold_leaderboards(batch).await
    }

    // Nobody asks for those that are over.
    async fn purge_leaderboards(&self, today: LocalDate, batch: i64) -> Result<usize> {
        self.store.purge_leaderboards(today, batch).await
    }

    async fn rebuild_statistics(&self, after: i64, limit: i64, now: Timestamp) -> Result<Vec<i64>> {
        let store = Arc::clone(&self.store);
        self.write(async move { store.rebuild_statistics(after, limit, now).await }, |rebuilt| {
            rebuilt.iter().flatten().map(|user| Write::Statistics { user: *user }).collect()
        })
        .await
    }

    async fn recount_leaderboards(&self) -> Result<()> {
        let store = Arc::clone(&self.store);
        self.write(async move { store.recount_leaderboards().await }, |_| vec![Write::Leaderboards]).await
    }
}

#[async_trait]
impl Outbox for CachedStore {
    async fn follow_changes(&self) -> Result<Option<Box<dyn ChangeFeed>>> {
        self.store.follow_changes().await
    }

    async fn own_changes(&self, limit: i64) -> Result<Vec<i64>> {
        self.store.own_changes(limit).await
    }

    async fn acknowledge_changes(&self, ids: &[i64]) -> Result<()> {
        self.store.acknowledge_changes(ids).await
    }

    async fn purge_changes(&self, before: Timestamp, batch: i64) -> Result<usize> {
        self.store.purge_changes(before, batch).await
    }
}

#[async_trait]
impl Administration for CachedStore {
    fn backend(&self) -> &'static str {
        self.store.backend()
    }

    fn pool(&self) -> PoolStatus {
        self.store.pool()
    }

    async fn migrate(&self) -> Result<Vec<String>> {
        self.store.migrate().await
    }

    async fn pending_migrations(&self) -> Result<Vec<String>> {
        self.store.pending_migrations().await
    }

    async fn ping(&self) -> Result<Timestamp> {
        self.store.ping().await
    }

    // What it removes was hidden before.
    async fn purge_conversations(&self, batch: i64) -> Result<usize> {
        self.store.purge_conversations(batch).await
    }

    // What it removes had expired before.
    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize> {
        self.store.purge_expired(before, batch).await
    }

    async fn explain(&self, shape: &str) -> Result<Option<String>> {
        self.store.explain(shape).await
    }

    async fn server_statements(&self, limit: i64) -> Result<Option<Vec<ServerStatement>>> {
        self.store.server_statements(limit).await
    }

    async fn replicas(&self) -> Result<Vec<Replica>> {
        self.store.replicas().await
    }

    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64> {
        self.store.seed(plan, progress).await
    }
}

/// A page's place and size, as a part of a key.
fn page_member(page: &PageRequest) -> String {
    match page.position {
        Position::Offset(offset) => format!("{}:{offset}", page.limit),
        Position::Cursor(cursor) => format!("{}:{}", page.limit, cursor.encode()),
    }
}

/// What a loader that always finds something never gives.
fn none<T>() -> Page<T> {
    Page { items: Vec::new(), total: 0, has_more: false, next: None, previous: None }
}
