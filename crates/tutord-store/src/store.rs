//! The [`Store`] trait: all that tutord asks of its database, one sub-trait an aggregate.
//!
//! Reads and writes that concern one student take the student's id and check the owner in the query
//! itself; what belongs to somebody else is answered like what does not exist.
//!
//! What is read most comes shared, in an [`Arc`]: a cache before the database gives the value that it keeps.

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

/// All aggregates together.
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
    /// Creates a user. [`Error::Conflict`](crate::Error::Conflict) when the address is taken, in any of its
    /// [forms](crate::rules::address).
    async fn create_user(&self, new: NewUser) -> Result<User>;

    /// The user with this id. 1 statement.
    async fn user(&self, id: i64) -> Result<Option<Arc<User>>>;

    /// The user with this address, in any of its [forms](crate::rules::address), and the password hash. 1 statement.
    async fn credentials(&self, email: &str) -> Result<Option<Credentials>>;

    /// Replaces a password hash, unless it has changed from `old` meanwhile. 1 statement.
    async fn replace_password_hash(&self, id: i64, old: &str, new: &str) -> Result<()>;

    /// The users whose address is the same as an earlier user's since addresses are compared in the present form, by id.
    /// 1 statement.
    async fn address_collisions(&self, limit: i64) -> Result<Vec<i64>>;

    /// Changes the given fields; `None` when there is no such user. 1 statement.
    async fn update_user(&self, id: i64, changes: UserChanges) -> Result<Option<User>>;

    /// Stores the learning fields of a user who has not completed the onboarding; `None` when it was completed before. 1 statement.
    async fn complete_onboarding(&self, id: i64, profile: LearningProfile) -> Result<Option<User>>;
}

/// The browsers that are trusted to log one user in.
pub const MAX_TRUSTED_DEVICES: i64 = 20;

/// Log-ins. Tokens are known to the store by their hashes alone.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Begins a session and notes the log-in time.
    async fn create_session(&self, user_id: i64, tokens: NewSessionTokens) -> Result<i64>;

    /// Who presents this access token; `None` when it is unknown or its session was revoked. An
    /// expired one is still reported until it is purged, so that the answer can say so. 1 statement.
    async fn identity(&self, access: &TokenHash) -> Result<Option<Identity>>;

    /// Exchanges a refresh token for `successors`, or revokes its session when the token is retired: when it was superseded
    /// more than `grace` before `now`, see `rules::refresh`.
    async fn rotate_session(
        &self,
        refresh: &TokenHash,
        successors: NewSessionTokens,
        now: Timestamp,
        grace: Duration,
    ) -> Result<Rotation>;

    /// Revokes one session of a user's. 1 statement.
    async fn revoke_session(&self, user_id: i64, session_id: i64) -> Result<()>;

    /// Revokes the session that this refresh token belongs to, spent or not; whose it was, unless it had ended before.
    /// 1 statement.
    async fn revoke_session_of(&self, refresh: &TokenHash) -> Result<Option<i64>>;

    /// Revokes every session of a user. 1 statement.
    async fn revoke_sessions(&self, user_id: i64) -> Result<()>;

    /// Whether a browser with this device token is trusted to log this user in. 1 statement.
    async fn is_trusted_device(&self, user_id: i64, device: &TokenHash) -> Result<bool>;

    /// Trusts a browser until `expires_at`; the user's oldest beyond [`MAX_TRUSTED_DEVICES`] are forgotten. 2 statements, or
    /// 3 when one is.
    async fn trust_device(&self, user_id: i64, device: &TokenHash, expires_at: Timestamp) -> Result<()>;
}

/// Single-use tokens that go out by mail.
#[async_trait]
pub trait EmailTokens: Send + Sync {
    /// Stores a token. Earlier ones of the same user and purpose become unusable, unless it [keeps](NewEmailToken::keeps_earlier)
    /// them.
    async fn create_email_token(&self, token: NewEmailToken) -> Result<()>;

    /// The owner of a token that is unused and unexpired. 1 statement.
    async fn email_token_owner(&self, hash: &TokenHash, purpose: EmailTokenPurpose) -> Result<Option<Credentials>>;

    /// Spends a verification token and marks its owner's address as verified; `None` when the token is not good.
    async fn verify_email(&self, hash: &TokenHash) -> Result<Option<User>>;

    /// Spends a reset token, stores the new password hash, and revokes all sessions and trusted browsers; `None` when the token is not good.
    async fn reset_password(&self, hash: &TokenHash, password_hash: &str) -> Result<Option<i64>>;
}

/// The queue of mails. A user has at most one mail of each kind in it.
#[async_trait]
pub trait Mails: Send + Sync {
    /// Stores a mail to be sent at once, in the place of an earlier one of its kind; returns whether there is a recipient: an
    /// active user with this id, for a verification one whose address is not verified. 1 statement.
    async fn enqueue_mail(&self, user_id: i64, kind: MailKind, message_id: &str) -> Result<bool>;

    /// Claims at most `limit` mails that are due at `now`, in one transaction. No other process claims them before `until`.
    async fn claim_mails(&self, now: Timestamp, until: Timestamp, limit: i64) -> Result<Vec<ClaimedMail>>;

    /// Removes a mail that was sent, unless a newer one took its place. 1 statement.
    async fn remove_mail(&self, mail: &ClaimedMail) -> Result<()>;

    /// Sets the time of the next attempt, and why the last one failed. 1 statement.
    async fn postpone_mail(&self, mail: &ClaimedMail, due_at: Timestamp, error: &str) -> Result<()>;

    /// Gives a mail up. It is kept for 30 days. 1 statement.
    async fn fail_mail(&self, mail: &ClaimedMail, error: &str) -> Result<()>;

    /// The newest mails that were given up, at most `limit`. 1 statement.
    async fn failed_mails(&self, limit: i64) -> Result<Vec<FailedMail>>;

    /// Counts the mails. 2 statements.
    async fn mail_counts(&self) -> Result<MailCounts>;
}

/// Conversations and messages.
#[async_trait]
pub trait Conversations: Send + Sync {
    /// A page of a student's conversations, newest activity first, ties by id. 1 statement, or 2 beyond
    /// the end; no message is read.
    async fn list_conversations(&self, user_id: i64, page: &PageRequest) -> Result<Arc<Page<Conversation>>>;

    /// The list as one should not read it: 1 statement, and 2 more **for each conversation**, which count its messages and
    /// look for the newest. For the demo of what [`querywatch`] finds, and to measure what it costs.
    async fn naive_conversations(&self, user_id: i64, limit: i64) -> Result<Vec<Conversation>>;

    /// A conversation and a page of its messages. 2 statements in 1 round trip; the cost does not grow with the page's depth.
    async fn conversation_page(
        &self,
        user_id: i64,
        id: i64,
        order: Order,
        page: &PageRequest,
    ) -> Result<Option<Arc<ConversationPage>>>;

    /// Begins a conversation; `None` when its exercise does not exist for this student. 1 statement, 2 with an exercise.
    async fn create_conversation(&self, new: NewConversation) -> Result<Option<Conversation>>;

    /// Renames a conversation. 1 statement.
    async fn rename_conversation(&self, user_id: i64, id: i64, title: &str) -> Result<Option<Conversation>>;

    /// Hides a conversation for good; [`purge_conversations`](Administration::purge_conversations) removes its rows. 1 statement.
    async fn delete_conversation(&self, user_id: i64, id: i64) -> Result<bool>;

    /// Stores a student's message with its conversation's counters in one transaction.
    async fn append_user_message(&self, new: NewUserMessage) -> Result<Appended>;

    /// Stores a reply with its conversation's counters in one transaction. `None` when the conversation is gone;
    /// [`Error::Conflict`](crate::Error::Conflict) when the message was answered before.
    async fn append_reply(&self, new: NewReply) -> Result<Option<Stored>>;

    /// Replaces a reply that [broke off](Message::is_incomplete) by a whole one, or by a longer piece, in one transaction;
    /// `None` when there is no such reply.
    async fn replace_reply(&self, new: NewReply) -> Result<Option<Stored>>;

    /// The messages of a conversation up to `position`, newest first, at most `limit`. 1 statement.
    async fn history(&self, user_id: i64, id: i64, position: i64, limit: i64) -> Result<Vec<Message>>;

    /// The newest message of the student's in a conversation and its reply; `None` when there is no such
    /// conversation or no such message. 2 statements.
    async fn last_exchange(&self, user_id: i64, id: i64) -> Result<Option<StoredExchange>>;
}

/// Exercises, and where a student stands with each.
///
/// A student sees the exercises of the catalogue and those generated for them. The changes of one student
/// come one after the other.
#[async_trait]
pub trait Exercises: Send + Sync {
    /// Stores what is new and changes what differs, by slug; all of it or nothing.
    async fn load_catalogue(
        &self,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<CatalogueLoaded>;

    /// The same for the catalogue that comes with tutord, unless `version` of it was the last that was loaded: `None` then.
    /// One process at a time.
    async fn load_built_in_catalogue(
        &self,
        version: &str,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<Option<CatalogueLoaded>>;

    /// Exercises of the catalogue, by id. 1 statement.
    async fn catalogue_exercises(&self, limit: i64) -> Result<Vec<Exercise>>;

    /// An exercise that this student may see. 1 statement.
    async fn exercise(&self, user_id: i64, id: i64) -> Result<Option<Arc<Exercise>>>;

    /// The daily exercise with the latest date; [`daily_date`](crate::rules::streak::daily_date) says whether it is
    /// the day's. 1 statement.
    async fn newest_daily(&self, user_id: i64) -> Result<Option<NewestDaily>>;

    /// The skipped exercise that has been due for longest on `day`. 1 statement.
    async fn due_exercise(&self, user_id: i64, day: LocalDate) -> Result<Option<i64>>;

    /// Exercises of the catalogue that the student has not taken up, by id. 1 statement.
    async fn daily_candidates(&self, user_id: i64, choice: &Choice, limit: i64) -> Result<Vec<Candidate>>;

    /// Makes an exercise the day's, unless the day has one: then that is the answer, and `false`. `None` when
    /// the student took up the chosen exercise meanwhile.
    async fn assign_daily(&self, user_id: i64, moment: &Moment, chosen: &Daily) -> Result<Option<(Assigned, bool)>>;

    /// Stores a generated exercise that this student alone sees, and takes it up. A repeated request is answered with the
    /// exercise that the first one stored.
    ///
    /// # Errors
    /// [`Error::KeyReused`](crate::Error::KeyReused).
    async fn create_exercise(&self, user_id: i64, new: &NewExercise, request: Option<&RequestKey>) -> Result<Assigned>;

    /// The exercise that an earlier request with the same key stored. 1 statement, and 1 more where there was one.
    ///
    /// # Errors
    /// [`Error::KeyReused`](crate::Error::KeyReused).
    async fn created_exercise(&self, user_id: i64, request: &RequestKey) -> Result<Option<Assigned>>;

    /// A page of the student's exercises, newest first. 1 statement, or 2 beyond the end.
    async fn exercise_history(
        &self,
        user_id: i64,
        status: Option<ExerciseStatus>,
        page: &PageRequest,
    ) -> Result<Page<HistoryItem>>;

    /// The student's exercises before a cursor, newest first, without counting them all. 1 statement.
    async fn history_before(&self, user_id: i64, cursor: Option<Cursor>, limit: i64) -> Result<Vec<HistoryItem>>;

    /// The exercises that the student completed or skipped, the newest first. 1 statement.
    async fn ended_exercises(&self, user_id: i64, limit: i64) -> Result<Vec<HistoryItem>>;

    /// Counts the next step of the hints and tells it; `None` when all were taken.
    async fn take_hint(&self, user_id: i64, exercise_id: i64, at: Timestamp) -> Result<Transition<Option<HintTaken>>>;

    /// Stores a solution that is still to be graded, unless the request is a repeated one.
    ///
    /// # Errors
    /// [`Error::KeyReused`](crate::Error::KeyReused).
    async fn submit_solution(
        &self,
        user_id: i64,
        exercise_id: i64,
        new: &NewSubmission,
        at: Timestamp,
    ) -> Result<Transition<Submitted>>;

    /// Stores a grade, once for each submission; one that passes completes the exercise.
    async fn grade_submission(
        &self,
        user_id: i64,
        submission: &StoredSubmission,
        grading: &Grading,
        moment: Moment,
    ) -> Result<Transition<Graded>>;

    /// Completes an exercise that the student took up and counts it in every sum, once; later calls are told the same.
    async fn complete_exercise(
        &self,
        user_id: i64,
        exercise_id: i64,
        time_spent_seconds: Option<i32>,
        moment: Moment,
    ) -> Result<Transition<Completion>>;

    /// Skips an exercise until it is due again.
    async fn skip_exercise(&self, user_id: i64, exercise_id: i64, moment: Moment) -> Result<Transition<()>>;

    /// The difficulty that was set for the student. 1 statement.
    async fn exercise_difficulty(&self, user_id: i64) -> Result<Option<Difficulty>>;

    /// Sets the difficulty of the student's daily exercises. 1 statement.
    async fn set_exercise_difficulty(&self, user_id: i64, difficulty: Difficulty) -> Result<()>;
}

/// What is summed up of completions, and leaderboards.
///
/// Sums are kept in the transaction of the completion; none of these reads a student's exercises but the
/// recomputation.
#[async_trait]
pub trait Progress: Send + Sync {
    /// A student's sums of all time, the achievements and the topics. 3 statements in 1 round trip.
    async fn progress(&self, user_id: i64) -> Result<ProgressOverview>;

    /// The sums of all time, and of the days from `from` to `to`. 1 statement.
    async fn activity(&self, user_id: i64, from: LocalDate, to: LocalDate) -> Result<ActivityHistory>;

    /// The newest day with a completion. 1 statement.
    async fn newest_activity(&self, user_id: i64) -> Result<Option<Activity>>;

    /// The student's topics by name, at most [`MAX_TOPICS`](crate::model::progress::MAX_TOPICS). 1 statement.
    async fn skill_levels(&self, user_id: i64) -> Result<Vec<TopicSkill>>;

    /// One topic. 1 statement.
    async fn skill_level(&self, user_id: i64, topic: &str) -> Result<Option<TopicSkill>>;

    /// A page of a leaderboard. 4 statements; their cost does not grow with the number of students, but by
    /// offset it grows with the offset.
    async fn leaderboard(&self, board: &Board, page: &PageRequest) -> Result<Page<LeaderboardEntry>>;

    /// A student's place and `neighbours` on each side. 7 statements; their cost does not grow with the number
    /// of students.
    async fn leaderboard_around(&self, board: &Board, user_id: i64, neighbours: i64) -> Result<Neighbourhood>;

    /// Hides a student from all leaderboards, or shows them again.
    async fn set_leaderboard_opt_out(&self, user_id: i64, opted_out: bool) -> Result<()>;

    /// Brings the counts behind the ranks up to date with at most `batch` changes; returns how many there
    /// were. Ranks are exact before and after.
    async fn fold_leaderboards(&self, batch: i64) -> Result<usize>;

    /// Removes at most `batch` entries of a leaderboard whose week or month was over before `today` (UTC);
    /// returns how many rows went. Call until it returns 0.
    async fn purge_leaderboards(&self, today: LocalDate, batch: i64) -> Result<usize>;

    /// Computes the sums and leaderboard entries of at most `limit` students with ids above `after` anew, each
    /// student in a transaction; returns their ids.
    async fn rebuild_statistics(&self, after: i64, limit: i64, now: Timestamp) -> Result<Vec<i64>>;

    /// Counts anew what ranks are computed from.
    async fn recount_leaderboards(&self) -> Result<()>;
}

/// Changes of rows that cached values are made from, as the database noted them in the transaction of the change,
/// whoever made it.
///
/// A process that has a [`node`](crate::StoreOptions::node) acts on its own changes at once and
/// [acknowledges](Self::acknowledge_changes) that; the one process that [follows](Self::follow_changes) acts on all
/// others, and on those that their process has not acknowledged in [`GRACE`](crate::model::change::GRACE), as it may
/// have died between its commit and the act. SQLite notes nothing of its rows: there the process that
/// [serves](crate::StoreOptions::serves) follows whether any other one wrote.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Becomes the process that follows the changes; `None` while another one is, and on SQLite in a process that does not
    /// serve.
    async fn follow_changes(&self) -> Result<Option<Box<dyn ChangeFeed>>>;

    /// The oldest changes that this process made and has not acknowledged. 1 statement.
    async fn own_changes(&self, limit: i64) -> Result<Vec<i64>>;

    /// Removes changes that were acted on. 1 statement.
    async fn acknowledge_changes(&self, ids: &[i64]) -> Result<()>;

    /// Removes at most `batch` changes from before `before`, which nobody has followed; returns how many there were.
    /// 1 statement.
    async fn purge_changes(&self, before: Timestamp, batch: i64) -> Result<usize>;
}

/// The changes that somebody has to act on. Dropping it lets another process follow.
#[async_trait]
pub trait ChangeFeed: Send {
    /// Waits for changes, about a second at most: there may be none. At most `limit`, the oldest first.
    ///
    /// # Errors
    /// When the connection is lost: somebody else may follow now.
    async fn next(&mut self, limit: i64) -> Result<Vec<Change>>;

    /// Removes changes that were acted on. Those of `next` that are not removed come again.
    async fn done(&mut self, changes: &[Change]) -> Result<()>;
}

/// How the connections of a pool stand; on SQLite, those that read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStatus {
    /// The most that may be open.
    pub max: usize,
    /// Open ones.
    pub open: usize,
    /// Open ones that nobody uses.
    pub idle: usize,
    /// Callers that wait for one.
    pub waiting: usize,
    /// Callers that asked for one, since the start.
    pub acquires: u64,
    /// How long all of them together waited for it, the opening of new ones included; in microseconds.
    pub acquire_us: u64,
}

/// A kind of statement as the database server counts it, for all who use the database, since its counters were reset.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerStatement {
    /// Its text, with `$1`, `$2`, … for values.
    pub sql: String,
    /// Times it was run.
    pub calls: i64,
    /// Time of all calls, in milliseconds.
    pub total_ms: f64,
    /// Time of one, in milliseconds.
    pub mean_ms: f64,
    /// The longest time, in milliseconds.
    pub max_ms: f64,
    /// Rows that it returned or changed.
    pub rows: i64,
}

/// The most replicas that are read.
pub const MAX_REPLICAS: i64 = 50;

/// A streaming replica that is connected to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// The `application_name` of its connection, 63 bytes at most: its `cluster_name`, or `walreceiver`, unless it was given
    /// one. Several may have the same.
    pub name: String,
    /// The IP address that it connects from; `None` through a socket, and where `progress` is.
    pub address: Option<String>,
    /// How far it is; `None` when the database user may not see it: it needs the role `pg_read_all_stats`.
    pub progress: Option<ReplicaProgress>,
}

/// How far a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// `streaming`, `catchup` after it was away, `backup` while it is copied, …
    pub state: String,
    /// What commits wait for: `async` (not for this one), `sync`, `quorum`, or `potential`.
    pub sync_state: String,
    /// Bytes of the write-ahead log that it has still to replay; `None` while it replays nothing, as one that is copied.
    pub lag_bytes: Option<u64>,
    /// Time between a write and its replay, as measured last; zero where nothing is left to replay, `None` where it was not
    /// measured.
    pub lag: Option<Duration>,
}

/// What operators and background work need.
#[async_trait]
pub trait Administration: Send + Sync {
    /// `postgres` or `sqlite`.
    fn backend(&self) -> &'static str;

    /// How the connections stand.
    fn pool(&self) -> PoolStatus;

    /// Applies pending migrations, one process at a time; returns their names.
    async fn migrate(&self) -> Result<Vec<String>>;

    /// Names of the migrations that are not applied yet.
    async fn pending_migrations(&self) -> Result<Vec<String>>;

    /// What the schema says of itself, and what it lacks. 2 statements.
    async fn schema(&self) -> Result<SchemaState>;

    /// Whether the database takes writes: writes a row and commits it. One that needs room on the disk, the first time
    /// and after a write has failed for want of it. 1 statement, or 2.
    async fn try_write(&self) -> Result<()>;

    /// Whether the database answers; also its clock. 1 statement.
    async fn ping(&self) -> Result<Timestamp>;

    /// Reads which database this is; `None` when that is not known: on a server in recovery, before the first migration, and
    /// on SQLite before a process has served the file. 1 statement, on a connection of its own.
    async fn database_identity(&self) -> Result<Option<DatabaseIdentity>>;

    /// Has `listener` told the identity: at once, and before any call returns what it read from another database than before.
    /// On PostgreSQL of a store that has a [`node`](crate::StoreOptions::node); changes behind open connections are found
    /// within 250 ms, and within about a second where a server hangs.
    fn on_identity(&self, listener: IdentityListener);

    /// Removes at most `batch` messages of deleted conversations, and the conversations that are empty
    /// then; returns how many rows went. Call until it returns 0.
    async fn purge_conversations(&self, batch: i64) -> Result<usize>;

    /// Removes sessions, tokens, trusted browsers and idempotency keys that ended before `before`, about `batch` of each; returns
    /// how many rows went. Call until it returns 0.
    async fn purge_expired(&self, before: Timestamp, batch: i64) -> Result<usize>;

    /// How the database would carry out a statement of this shape, which has a `?` for each value: the text of its EXPLAIN.
    /// Nothing is run. On a connection of its own, in some seconds at most. `None` for what is no statement about rows, and
    /// for what can't be planned without its values.
    async fn explain(&self, shape: &str) -> Result<Option<String>>;

    /// What the server itself counts (`pg_stat_statements`): the statements that took the most time, at most `limit`. `None`
    /// where the extension is not there, may not be read, or the database is SQLite. 2 statements.
    async fn server_statements(&self, limit: i64) -> Result<Option<Vec<ServerStatement>>>;

    /// The replicas that are connected to the server (`pg_stat_replication`), at most [`MAX_REPLICAS`], by name and address;
    /// none on SQLite. 1 statement.
    async fn replicas(&self) -> Result<Vec<Replica>>;

    /// Loads the rows of a plan in one transaction and returns how many they are; `progress` is told now and
    /// then how many are written. [`Error::Conflict`](crate::Error::Conflict) when this plan's students exist.
    async fn seed(&self, plan: &SeedPlan, progress: &(dyn Fn(u64) + Send + Sync)) -> Result<u64>;
}
