//! Sums of completions, and leaderboards.

use async_trait::async_trait;

use crate::error::Result;
use crate::model::progress::{
    Activity, ActivityHistory, Board, LeaderboardEntry, Neighbourhood, ProgressOverview, TopicSkill,
};
use crate::page::{Page, PageRequest};
use crate::time::{LocalDate, Timestamp};

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

    /// Returns a page of a leaderboard. 1 statement; its cost does not grow with the number of students, but with the
    /// offset if one is given.
    async fn leaderboard(&self, board: &Board, page: &PageRequest) -> Result<Page<LeaderboardEntry>>;

    /// Returns a student's place and `neighbours` on each side. 2 statements; their cost does not grow with the number
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
