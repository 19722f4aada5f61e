//! Exercises, and the progress of students in them.

use async_trait::async_trait;

use super::Loaded;
use crate::error::Result;
use crate::model::{
    AssignedExercise, Candidate, CandidateFilter, CatalogueCounts, Completion, DailyChoice, Difficulty, Exercise,
    ExerciseStatus, GradedSubmission, Grading, HistoryItem, Moment, NewAchievement, NewExercise, NewSubmission,
    NewestDailyExercise, RequestKey, StoredSubmission, SubmissionOutcome, TakenHint, Transition,
};
use crate::page::{Cursor, Page, PageRequest};
use crate::time::{LocalDate, Timestamp};

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
    ) -> Result<CatalogueCounts>;

    /// Stores the catalogue that ships with tutord. Returns `None` if this `version` was loaded last. One process at a
    /// time.
    async fn load_built_in_catalogue(
        &self,
        version: &str,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<Option<CatalogueCounts>>;

    /// Returns exercises of the catalogue, by id. 1 statement.
    async fn catalogue_exercises(&self, limit: i64) -> Result<Vec<Exercise>>;

    /// Returns an exercise that this student may see. 1 statement.
    async fn exercise(&self, user_id: i64, id: i64) -> Result<Option<Loaded<Exercise>>>;

    /// Returns the daily exercise with the latest date; [`daily_date`](crate::rules::streak::daily_date) decides
    /// whether it is current. 1 statement.
    async fn newest_daily(&self, user_id: i64) -> Result<Option<NewestDailyExercise>>;

    /// Returns the skipped exercise that has been due for longest on `day`. 1 statement.
    async fn due_exercise(&self, user_id: i64, day: LocalDate) -> Result<Option<i64>>;

    /// Returns exercises of the catalogue that the student has not started, by id. 1 statement.
    async fn daily_candidates(&self, user_id: i64, choice: &CandidateFilter, limit: i64) -> Result<Vec<Candidate>>;

    /// Assigns the daily exercise. If the day already has one, returns it and `false`. Returns `None` if the student
    /// has started the chosen exercise meanwhile.
    async fn assign_daily(
        &self,
        user_id: i64,
        moment: &Moment,
        chosen: &DailyChoice,
    ) -> Result<Option<(AssignedExercise, bool)>>;

    /// Stores and starts a generated exercise that only this student sees. A repeated request returns the exercise of
    /// the first one.
    ///
    /// # Errors
    /// Returns [`Error::KeyReused`](crate::Error::KeyReused) if the key was used for another request.
    async fn create_exercise(
        &self,
        user_id: i64,
        new: &NewExercise,
        request: Option<&RequestKey>,
    ) -> Result<AssignedExercise>;

    /// Returns the exercise stored by an earlier request with the same key. 1 statement, and 1 more if there was one.
    ///
    /// # Errors
    /// Returns [`Error::KeyReused`](crate::Error::KeyReused) if the key was used for another request.
    async fn created_exercise(&self, user_id: i64, request: &RequestKey) -> Result<Option<AssignedExercise>>;

    /// Returns a page of the student's exercises, newest first. 1 statement for the first page, 2 in 1 round trip for
    /// others.
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

    /// Counts and returns the next hint, or `None` if all hints are taken. 2 round trips.
    async fn take_hint(&self, user_id: i64, exercise_id: i64, at: Timestamp) -> Result<Transition<Option<TakenHint>>>;

    /// Stores an ungraded solution, unless the request is a repetition. 2 round trips.
    ///
    /// # Errors
    /// Returns [`Error::KeyReused`](crate::Error::KeyReused) if the key was used for another request.
    async fn submit_solution(
        &self,
        user_id: i64,
        exercise_id: i64,
        new: &NewSubmission,
        at: Timestamp,
    ) -> Result<Transition<SubmissionOutcome>>;

    /// Stores a grade, once for each submission. A passing grade completes the exercise. 2 round trips, 1 more if it
    /// creates leaderboards.
    async fn grade_submission(
        &self,
        user_id: i64,
        submission: &StoredSubmission,
        grading: &Grading,
        moment: Moment,
    ) -> Result<Transition<GradedSubmission>>;

    /// Completes an exercise that the student has started and counts it in every sum, once. Repeated calls return the
    /// same result. 2 round trips, 1 more if it creates leaderboards.
    async fn complete_exercise(
        &self,
        user_id: i64,
        exercise_id: i64,
        time_spent_seconds: Option<i32>,
        moment: Moment,
    ) -> Result<Transition<Completion>>;

    /// Skips an exercise until it is due again. 2 round trips.
    async fn skip_exercise(&self, user_id: i64, exercise_id: i64, moment: Moment) -> Result<Transition<()>>;

    /// Returns the difficulty set for the student. 1 statement.
    async fn exercise_difficulty(&self, user_id: i64) -> Result<Option<Difficulty>>;

    /// Sets the difficulty of the student's daily exercises. 1 statement.
    async fn set_exercise_difficulty(&self, user_id: i64, difficulty: Difficulty) -> Result<()>;
}
