//! The [`Store`] trait: all database calls of tutord, with a sub-trait for each aggregate.
//!
//! Calls for one student take the student's id and check the owner in the query itself. Rows of other users are treated
//! as missing.
//!
//! Frequent reads return an [`Arc`], so that a cache can share its value.

use std::sync::Arc;

use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use crate::error::Result;
use crate::identity::{DatabaseIdentity, IdentityListener};
use crate::metadata::SchemaState;
use crate::model::change::Change;
use crate::model::progress::{
    Activity, ActivityHistory, Board, LeaderboardEntry, Neighbourhood, ProgressOverview, TopicSkill,
};
use crate::model::time::{LocalDate, Timestamp};
use crate::model::{
    Appended, Assigned, Candidate, CatalogueLoaded, Choice, ClaimedMail, Completion, Conversation, ConversationPage,
    Credentials, Daily, Difficulty, EmailTokenPurpose, Exercise, ExerciseStatus, FailedMail, Graded, Grading,
    HintTaken, HistoryItem, Identity, LearningProfile, MailCounts, MailKind, Message, Moment, NewAchievement,
    NewConversation, NewEmailToken, NewExercise, NewReply, NewSessionTokens, NewSubmission, NewUser, NewUserMessage,
    NewestDaily, Order, RequestKey, Rotation, Stored, StoredExchange, StoredSubmission, Submitted, TokenHash,
    Transition, User, UserChanges,
};
use crate::page::{Cursor, Page, PageRequest};
use crate::seed::SeedPlan;

/// All aggregates of the store.
pub trait Store:
    Users + Sessions + EmailTokens + Mails + Conversations + Exercises + Progress + Outbox + Administration
{
}
impl<T: Users + Sessions + EmailTokens + Mails + Conversations + Exercises + Progress + Outbox + Administration> Store
    for T
{
}

/// Accounts and profiles.
#[async_trait]
pub trait Users: Send + Sync {
    /// Creates a user. Returns [`Error::Conflict`](crate::Error::Conflict) if the address is already registered in any
    /// of its [forms](crate::rules::address).
    async fn create_user(&self, new: NewUser) -> Result<User>;

    /// Returns the user with this id. 1 statement.
    async fn user(&self, id: i64) -> Result<Option<Arc<User>>>;

    /// Returns the user with this address, in any of its [forms](crate::rules::address), and the password hash. 1
    /// statement.
    async fn credentials(&self, email: &str) -> Result<Option<Credentials>>;

    /// Replaces a password hash if it still equals `old`. 1 statement.
    async fn replace_password_hash(&self, id: i64, old: &str, new: &str) -> Result<()>;

    /// Returns the ids of users whose address equals an earlier user's address in the current compared form. 1
    /// statement.
    async fn address_collisions(&self, limit: i64) -> Result<Vec<i64>>;

    /// Updates the given fields. Returns `None` if the user does not exist. 1 statement.
    async fn update_user(&self, id: i64, changes: UserChanges) -> Result<Option<User>>;

    /// Stores the learning fields of a user. Returns `None` if the onboarding is already completed. 1 statement.
    async fn complete_onboarding(&self, id: i64, profile: LearningProfile) -> Result<Option<User>>;
}

/// The maximum number of trusted browsers of a user.
pub const MAX_TRUSTED_DEVICES: i64 = 20;

/// Sessions. The store knows only the hashes of tokens.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Creates a session and records the log-in time.
    async fn create_session(&self, user_id: i64, tokens: NewSessionTokens) -> Result<i64>;

    /// Returns the owner of this access token, or `None` if the token is unknown or its session is revoked. An expired
    /// token is still returned until it is purged, so that the response can say so. 1 statement.
    async fn identity(&self, access: &TokenHash) -> Result<Option<Identity>>;

    /// Exchanges a refresh token for `successors`, or revokes its session if the token is retired: superseded
    /// more than `grace` before `now`; see `rules::refresh`.
    async fn rotate_session(
        &self,
        refresh: &TokenHash,
        successors: NewSessionTokens,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Rotation>;

    /// Revokes a session of a user. 1 statement.
    async fn revoke_session(&self, user_id: i64, session_id: i64) -> Result<()>;

    /// Revokes the session of this refresh token, used or not. Returns its user, unless the session had already ended.
    /// 1 statement.
    async fn revoke_session_of(&self, refresh: &TokenHash) -> Result<Option<i64>>;

    /// Revokes all sessions of a user. 1 statement.
    async fn revoke_sessions(&self, user_id: i64) -> Result<()>;

    /// Returns `true` if the browser with this device token is trusted for the user. 1 statement.
    async fn is_trusted_device(&self, user_id: i64, device: &TokenHash) -> Result<bool>;

    /// Trusts a browser until `expires_at`, and removes the user's oldest trusted browsers beyond
    /// [`MAX_TRUSTED_DEVICES`]. 2 statements, or 3 if one is removed.
    async fn trust_device(&self, user_id: i64, device: &TokenHash, expires_at: Timestamp) -> Result<()>;
}

/// Single-use tokens sent by mail.
#[async_trait]
pub trait EmailTokens: Send + Sync {
    /// Stores a token. Invalidates earlier ones of the same user and purpose, unless it
    /// [keeps](NewEmailToken::keeps_earlier) them.
    async fn create_email_token(&self, token: NewEmailToken) -> Result<()>;

    /// Returns the owner of an unused and unexpired token. 1 statement.
    async fn email_token_owner(&self, hash: &TokenHash, purpose: EmailTokenPurpose) -> Result<Option<Credentials>>;

    /// Uses a verification token and marks its owner's address as verified. Returns `None` if the token is invalid.
    async fn verify_email(&self, hash: &TokenHash) -> Result<Option<User>>;

    /// Uses a reset token, stores the new password hash, and revokes all sessions and trusted browsers. Returns `None`
    /// if the token is invalid.
    async fn reset_password(&self, hash: &TokenHash, password_hash: &str) -> Result<Option<i64>>;
}

/// The queue of mails, with at most one mail of each kind for a user.
#[async_trait]
pub trait Mails: Send + Sync {
    /// Stores a mail to be sent at once, and replaces an earlier one of its kind. Returns `true` if there is a
    /// recipient: an active user with this id, whose address is unverified if it is a verification mail. 1 statement.
    async fn enqueue_mail(&self, user_id: i64, kind: MailKind, message_id: &str) -> Result<bool>;

    /// Claims at most `limit` mails that are due at `now`, in one transaction. Other processes can't claim them before
    /// `until`.
    async fn claim_mails(&self, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<ClaimedMail>>;

    /// Removes a sent mail, unless a newer one has replaced it. 1 statement.
    async fn remove_mail(&self, mail: &ClaimedMail) -> Result<()>;

    /// Sets the time of the next attempt, and the cause of the last failure. 1 statement.
    async fn postpone_mail(&self, mail: &ClaimedMail, due_at: Timestamp, error: &str) -> Result<()>;

    /// Marks a mail as given up, and keeps it for 30 days. 1 statement.
    async fn fail_mail(&self, mail: &ClaimedMail, error: &str) -> Result<()>;

    /// Returns the newest given-up mails, at most `limit`. 1 statement.
    async fn failed_mails(&self, limit: i64) -> Result<Vec<FailedMail>>;

    /// Counts the mails. 2 statements.
    async fn mail_counts(&self) -> Result<MailCounts>;
}

/// Conversations and messages.
#[async_trait]
pub trait Conversations: Send + Sync {
    /// Returns a page of a student's conversations, newest activity first, ties by id. Reads no messages. 1 statement,
    /// or 2 beyond the end.
    async fn list_conversations(&self, user_id: i64, page: &PageRequest) -> Result<Arc<Page<Conversation>>>;

    /// Returns the list with N+1 queries: 1 statement, and 2 more **for each conversation**, which count its messages
    /// and find the newest. Demonstrates what [`querywatch`] detects, and what it costs.
    async fn naive_conversations(&self, user_id: i64, limit: i64) -> Result<Vec<Conversation>>;

    /// Returns a conversation and a page of its messages. 2 statements in 1 round trip; the cost does not grow with the
    /// page's depth.
    async fn conversation_page(
        &self,
        user_id: i64,
        id: i64,
        order: Order,
        page: &PageRequest,
    ) -> Result<Option<Arc<ConversationPage>>>;

    /// Creates a conversation. Returns `None` if its exercise does not exist for this student. 1 statement, 2 with an
    /// exercise.
    async fn create_conversation(&self, new: NewConversation) -> Result<Option<Conversation>>;

    /// Renames a conversation. 1 statement.
    async fn rename_conversation(&self, user_id: i64, id: i64, title: &str) -> Result<Option<Conversation>>;

    /// Hides a conversation permanently; [`purge_conversations`](Administration::purge_conversations) removes its rows.
    /// 1 statement.
    async fn delete_conversation(&self, user_id: i64, id: i64) -> Result<bool>;

    /// Stores a student's message and updates its conversation's counters in one transaction.
    async fn append_user_message(&self, new: NewUserMessage) -> Result<Appended>;

    /// Stores a reply and updates its conversation's counters in one transaction. Returns `None` if the conversation is
    /// deleted, and [`Error::Conflict`](crate::Error::Conflict) if the message already has a reply.
    async fn append_reply(&self, new: NewReply) -> Result<Option<Stored>>;

    /// Replaces an [incomplete](Message::is_incomplete) reply by a complete or longer one, in one transaction. Returns
    /// `None` if there is no such reply.
    async fn replace_reply(&self, new: NewReply) -> Result<Option<Stored>>;

    /// Returns the messages of a conversation up to `position`, newest first, at most `limit`. 1 statement.
    async fn history(&self, user_id: i64, id: i64, position: i64, limit: i64) -> Result<Vec<Message>>;

    /// Returns the newest message of the student in a conversation and its reply, or `None` if there is no such
    /// conversation or message. 2 statements.
    async fn last_exchange(&self, user_id: i64, id: i64) -> Result<Option<StoredExchange>>;
}

/// Exercises, and the progress of students in them.
///
/// A student sees the exercises of the catalogue and those generated for the student. Changes of one student are
/// serialized.
#[async_trait]
pub trait Exercises: Send + Sync {
    /// Stores new and changed entries by slug, in one transaction.
    async fn load_catalogue(
        &self,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<CatalogueLoaded>;

    /// Stores the catalogue that ships with tutord. Returns `None` if this `version` was loaded last. One process at a
    /// time.
    async fn load_built_in_catalogue(
        &self,
        version: &str,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<Option<CatalogueLoaded>>;

    /// Returns exercises of the catalogue, by id. 1 statement.
    async fn catalogue_exercises(&self, limit: i64) -> Result<Vec<Exercise>>;

    /// Returns an exercise that this student may see. 1 statement.
    async fn exercise(&self, user_id: i64, id: i64) -> Result<Option<Arc<Exercise>>>;

    /// Returns the daily exercise with the latest date; [`daily_date`](crate::rules::streak::daily_date) decides
    /// whether it is current. 1 statement.
    async fn newest_daily(&self, user_id: i64) -> Result<Option<NewestDaily>>;

    /// Returns the skipped exercise that has been due for longest on `day`. 1 statement.
    async fn due_exercise(&self, user_id: i64, day: LocalDate) -> Result<Option<i64>>;

    /// Returns exercises of the catalogue that the student has not started, by id. 1 statement.
    async fn daily_candidates(&self, user_id: i64, choice: &Choice, limit: i64) -> Result<Vec<Candidate>>;

    /// Assigns the daily exercise. If the day already has one, returns it and `false`. Returns `None` if the student
    /// has started the chosen exercise meanwhile.
    async fn assign_daily(&self, user_id: i64, moment: &Moment, chosen: &Daily) -> Result<Option<(Assigned, bool)>>;

    /// Stores and starts a generated exercise that only this student sees. A repeated request returns the exercise of
    /// the first one.
    ///
    /// # Errors
    /// Returns [`Error::KeyReused`](crate::Error::KeyReused) if the key was used for another request.
    async fn create_exercise(&self, user_id: i64, new: &NewExercise, request: Option<&RequestKey>) -> Result<Assigned>;

    /// Returns the exercise stored by an earlier request with the same key. 1 statement, and 1 more if there was one.
    ///
    /// # Errors
    /// Returns [`Error::KeyReused`](crate::Error::KeyReused) if the key was used for another request.
    async fn created_exercise(&self, user_id: i64, request: &RequestKey) -> Result<Option<Assigned>>;

    /// Returns a page of the student's exercises, newest first. 1 statement, or 2 beyond the end.
    async fn exercise_history(
        &self,
        user_id: i64,
        status: Option<ExerciseStatus>,
        page: &PageRequest,
    ) -> Result<Page<HistoryItem>>;

    /// Returns the student's exercises before a cursor, newest first, without the total. 1 statement.
    async fn history_before(&self, user_id: i64, cursor: Option<Cursor>, limit: i64) -> Result<Vec<HistoryItem>>;

    /// Returns the exercises that the student completed or skipped, newest first. 1 statement.
    async fn ended_exercises(&self, user_id: i64, limit: i64) -> Result<Vec<HistoryItem>>;

    /// Counts and returns the next hint, or `None` if all hints are taken.
    async fn take_hint(&self, user_id: i64, exercise_id: i64, at: Timestamp) -> Result<Transition<Option<HintTaken>>>;

    /// Stores an ungraded solution, unless the request is a repetition.
    ///
    /// # Errors
    /// Returns [`Error::KeyReused`](crate::Error::KeyReused) if the key was used for another request.
    async fn submit_solution(
        &self,
        user_id: i64,
        exercise_id: i64,
        new: &NewSubmission,
        at: Timestamp,
    ) -> Result<Transition<Submitted>>;

    /// Stores a grade, once for each submission. A passing grade completes the exercise.
    async fn grade_submission(
        &self,
        user_id: i64,
        submission: &StoredSubmission,
        grading: &Grading,
        moment: Moment,
    ) -> Result<Transition<Graded>>;

    /// Completes an exercise that the student has started and counts it in every sum, once. Repeated calls return the
    /// same result.
    async fn complete_exercise(
        &self,
        user_id: i64,
        exercise_id: i64,
        time_spent_seconds: Option<i32>,
        moment: Moment,
    ) -> Result<Transition<Completion>>;

    /// Skips an exercise until it is due again.
    async fn skip_exercise(&self, user_id: i64, exercise_id: i64, moment: Moment) -> Result<Transition<()>>;

    /// Returns the difficulty set for the student. 1 statement.
    async fn exercise_difficulty(&self, user_id: i64) -> Result<Option<Difficulty>>;

    /// Sets the difficulty of the student's daily exercises. 1 statement.
    async fn set_exercise_difficulty(&self, user_id: i64, difficulty: Difficulty) -> Result<()>;
}

/// Sums of completions, and leaderboards.
///
/// The transaction of a completion updates the sums. Only the recomputation reads a student's exercises.
#[async_trait]
pub trait Progress: Send + Sync {
    /// Returns a student's sums of all time, the achievements and the topics. 3 statements in 1 round trip.
    async fn progress(&self, user_id: i64) -> Result<ProgressOverview>;

    /// Returns the sums of all time, and of the days from `from` to `to`. 1 statement.
    async fn activity(&self, user_id: i64, from: LocalDate, to: LocalDate) -> Result<ActivityHistory>;

    /// Returns the newest day with a completion. 1 statement.
    async fn newest_activity(&self, user_id: i64) -> Result<Option<Activity>>;

    /// Returns the student's topics by name, at most [`MAX_TOPICS`](crate::model::progress::MAX_TOPICS). 1 statement.
    async fn skill_levels(&self, user_id: i64) -> Result<Vec<TopicSkill>>;

    /// Returns one topic. 1 statement.
    async fn skill_level(&self, user_id: i64, topic: &str) -> Result<Option<TopicSkill>>;

    /// Returns a page of a leaderboard. 4 statements; their cost does not grow with the number of students, but with
    /// the offset if one is given.
    async fn leaderboard(&self, board: &Board, page: &PageRequest) -> Result<Page<LeaderboardEntry>>;

    /// Returns a student's place and `neighbours` on each side. 7 statements; their cost does not grow with the number
    /// of students.
    async fn leaderboard_around(&self, board: &Board, user_id: i64, neighbours: i64) -> Result<Neighbourhood>;

    /// Hides a student from all leaderboards, or shows them again.
    async fn set_leaderboard_opt_out(&self, user_id: i64, opted_out: bool) -> Result<()>;

    /// Applies at most `batch` changes to the counts behind the ranks, and returns their number. Ranks are exact before
    /// and after.
    async fn fold_leaderboards(&self, batch: i64) -> Result<usize>;

    /// Removes at most `batch` entries of a leaderboard whose week or month ended before `today` (UTC). Returns the
    /// number of removed rows; call until it returns 0.
    async fn purge_leaderboards(&self, today: LocalDate, batch: i64) -> Result<usize>;

    /// Recomputes the sums and leaderboard entries of at most `limit` students with ids above `after`, each student in
    /// a transaction. Returns their ids.
    async fn rebuild_statistics(&self, after: i64, limit: i64, now: Timestamp) -> Result<Vec<i64>>;

    /// Recomputes the counts behind the ranks.
    async fn recount_leaderboards(&self) -> Result<()>;
}

/// Changes of rows behind cached values. The transaction of each change records it, regardless of the client.
///
/// A process with a [`node`](crate::StoreOptions::node) invalidates its own changes at once and
/// [acknowledges](Self::acknowledge_changes) them. The one process that [follows](Self::follow_changes) invalidates all
/// other changes, and those that were not acknowledged within [`GRACE`](crate::model::change::GRACE), because their
/// process may have died after the commit. SQLite records no changes: the process that
/// [serves](crate::StoreOptions::serves) detects whether another process wrote.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Becomes the process that follows the changes. Returns `None` if another process does, or on SQLite if this
    /// process does not serve.
    async fn follow_changes(&self) -> Result<Option<Box<dyn ChangeFeed>>>;

    /// Returns the oldest unacknowledged changes of this process. 1 statement.
    async fn own_changes(&self, limit: i64) -> Result<Vec<i64>>;

    /// Removes processed changes. 1 statement.
    async fn acknowledge_changes(&self, ids: &[i64]) -> Result<()>;

    /// Removes at most `batch` unfollowed changes from before `before`, and returns their number. 1 statement.
    async fn purge_changes(&self, before: Timestamp, batch: i64) -> Result<usize>;
}

/// A feed of changes that must be invalidated. Dropping it lets another process follow.
#[async_trait]
pub trait ChangeFeed: Send {
    /// Waits for changes, for about a second, and returns at most `limit`, oldest first; the result can be empty.
    ///
    /// # Errors
    /// Returns an error if the connection is lost; another process can follow then.
    async fn next(&mut self, limit: i64) -> Result<Vec<Change>>;

    /// Removes processed changes. `next` returns the remaining ones again.
    async fn done(&mut self, changes: &[Change]) -> Result<()>;
}

/// The status of a connection pool; on SQLite, of the read connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// The maximum number of connections.
    pub max: usize,
    /// The number of open connections.
    pub open: usize,
    /// The number of idle connections.
    pub idle: usize,
    /// The number of callers that wait for a connection.
    pub waiting: usize,
    /// The number of acquisitions since the start.
    pub acquires: u64,
    /// The total wait of all acquisitions in microseconds, including the time to open connections.
    pub acquire_us: u64,
}

/// Statistics of a statement of all users of the database, since the last reset of the server's statistics.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerStatement {
    /// The text, with `$1`, `$2`, … for values.
    pub sql: String,
    /// The number of calls.
    pub calls: i64,
    /// The total time of all calls, in milliseconds.
    pub total_ms: f64,
    /// The mean time of a call, in milliseconds.
    pub mean_ms: f64,
    /// The longest time of a call, in milliseconds.
    pub max_ms: f64,
    /// The number of returned or changed rows.
    pub rows: i64,
}

/// The maximum number of replicas that are read.
pub const MAX_REPLICAS: i64 = 50;

/// A streaming replica that is connected to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The `application_name` of the connection, at most 63 bytes; by default the `cluster_name`, or `walreceiver`.
    /// Several replicas can share a name.
    pub name: String,
    /// The IP address of the replica; `None` for a socket, or if `progress` is `None`.
    pub address: Option<String>,
    /// The progress; `None` if the database user lacks the role `pg_read_all_stats`.
    pub progress: Option<ReplicaProgress>,
}

/// The progress of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// The state: `streaming`, `catchup` after a disconnect, `backup` during a copy, …
    pub state: String,
    /// The synchronous state: `async` (commits do not wait for this replica), `sync`, `quorum`, or `potential`.
    pub sync_state: String,
    /// The bytes of the write-ahead log that the replica has not replayed; `None` if it replays nothing, as during a
    /// copy.
    pub lag_bytes: Option<u64>,
    /// The last measured time between a write and its replay; zero if nothing is left to replay, `None` if not
    /// measured.
    pub lag: Option<Duration>,
}

/// Calls for operators and background tasks.
#[async_trait]
pub trait Administration: Send + Sync {
    /// Returns `postgres` or `sqlite`.
    fn backend(&self) -> &'static str;

    /// Returns the status of the connection pool.
    fn pool(&self) -> PoolStatus;

    /// Applies pending migrations and returns their names. One process at a time.
    async fn migrate(&self) -> Result<Vec<String>>;

    /// Returns the names of the pending migrations.
    async fn pending_migrations(&self) -> Result<Vec<String>>;

    /// Returns the metadata of the schema and its pending migrations. 2 statements.
    async fn schema(&self) -> Result<SchemaState>;

    /// Checks that the database accepts writes, by writing and committing a row. The first check, and the checks after
    /// a write that failed for lack of disk space, write a row that needs new space. 1 statement, or 2.
    async fn try_write(&self) -> Result<()>;

    /// Checks that the database responds, and returns its clock. 1 statement.
    async fn ping(&self) -> Result<Timestamp>;

    /// Reads the identity of the database. Returns `None` if it is unknown: on a server in recovery, before the first
    /// migration, and on SQLite before a process has served the file. 1 statement, on a separate connection.
    async fn database_identity(&self) -> Result<Option<DatabaseIdentity>>;

    /// Calls `listener` with the identity: at once, and before any call returns data of another database than before.
    /// On PostgreSQL, only for a store with a [`node`](crate::StoreOptions::node); changes behind open connections are
    /// detected within 250 ms, or within about a second if a server hangs.
    fn on_identity(&self, listener: IdentityListener);

    /// Removes at most `batch` messages of deleted conversations, and the conversations that are then empty. Returns
    /// the number of removed rows; call until it returns 0.
    async fn purge_conversations(&self, batch: i64) -> Result<usize>;

    /// Removes sessions, tokens, trusted browsers and idempotency keys that ended before `before`, about `batch` of
    /// each. Returns the number of removed rows; call until it returns 0.
    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize>;

    /// Returns the plan (the text of EXPLAIN) of a statement of this shape, which has a `?` for each value. Does not
    /// execute the statement. Uses a separate connection, for a few seconds at most. Returns `None` for statements that
    /// are not about rows, or that can't be planned without values.
    async fn explain(&self, shape: &str) -> Result<Option<String>>;

    /// Returns the statements with the longest total time according to `pg_stat_statements`, at most `limit`, or `None`
    /// if the extension is missing, can't be read, or the database is SQLite. 2 statements.
    async fn server_statements(&self, limit: i64) -> Result<Option<Vec<ServerStatement>>>;

    /// Returns the connected replicas (`pg_stat_replication`), at most [`MAX_REPLICAS`], by name and address; none on
    /// SQLite. 1 statement.
    async fn replicas(&self) -> Result<Vec<Replica>>;

    /// Loads the rows of a plan in one transaction and returns their number. Reports the number of written rows to
    /// `progress` from time to time. Returns [`Error::Conflict`](crate::Error::Conflict) if this plan's students
    /// already exist.
    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64>;
}
