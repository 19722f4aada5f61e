//! Exercises, and the progress of students in them.

use diesel::prelude::*;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{AchievementCategory, Difficulty, ExerciseStatus, ExerciseType, Rarity, Requirement};
use crate::page::{Cursor, List};
use crate::schema::{achievements, exercises, user_exercises};
use crate::time::{LocalDate, Timestamp, zone};

/// The public part of an exercise, without solution and hints.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = exercises)]
pub struct Exercise {
    /// Positive id.
    pub id: i64,
    /// The title.
    pub title: String,
    /// The description, in a sentence or two.
    pub description: String,
    /// The complete task.
    pub instructions: String,
    /// The starter code.
    pub starter_code: Option<String>,
    /// The type.
    pub exercise_type: ExerciseType,
    /// The difficulty.
    pub difficulty: Difficulty,
    /// Lower-case name of the language.
    pub programming_language: String,
    /// The topics: lower-case words, separated by commas.
    pub topics: String,
    /// The test cases: calls with their expected results, one line each.
    pub test_cases: Option<String>,
    /// The learning objectives, if the author gave any: a JSON array of texts.
    #[diesel(column_name = learning_objectives)]
    pub objectives_json: String,
    /// The estimated time in minutes, if the author gave one.
    #[diesel(column_name = estimated_time_minutes)]
    pub estimated_minutes: Option<i32>,
    /// Set if a model generated the exercise.
    pub generated_by_ai: bool,
    /// The time of creation.
    pub created_at: Timestamp,
}

impl Exercise {
    /// Returns the distinct topics. A completion counts once for each.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let topics = self.topics.as_str();
        topics
            .split(',')
            .enumerate()
            .filter(move |(index, topic)| !topics.split(',').take(*index).any(|before| before == *topic))
            .map(|(_, topic)| topic)
            .filter(|topic| !topic.is_empty())
    }

    /// Returns the learning objectives: those of the author, or else the topics.
    pub fn learning_objectives(&self) -> Vec<String> {
        let authored: Vec<String> = serde_json::from_str(&self.objectives_json).unwrap_or_default();
        if authored.is_empty() { self.topics().map(|topic| format!("Practise {topic}")).collect() } else { authored }
    }

    /// Returns the estimated time in minutes: that of the author, or else the default of the difficulty.
    pub fn estimated_time_minutes(&self) -> i32 {
        self.estimated_minutes.unwrap_or(match self.difficulty {
            Difficulty::Easy => 10,
            Difficulty::Medium => 20,
            Difficulty::Hard => 40,
        })
    }
}

/// The private part of an exercise.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = exercises)]
pub struct ExerciseKey {
    /// A correct solution.
    pub solution: Option<String>,
    /// The hints: a JSON array of texts.
    #[diesel(column_name = hints)]
    pub hints_json: String,
}

impl ExerciseKey {
    /// Returns the hints, gentlest first.
    pub fn hints(&self) -> Vec<String> {
        serde_json::from_str(&self.hints_json).unwrap_or_default()
    }
}

/// A student's newest daily exercise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestDailyExercise {
    /// The exercise, with the student's progress.
    pub assigned: AssignedExercise,
    /// The date of the daily exercise, and the time when it was assigned.
    pub dated: (LocalDate, Timestamp),
}

/// A new exercise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewExercise {
    /// The permanent name of a catalogue exercise; `None` for a generated one.
    pub slug: Option<String>,
    /// See [`Exercise::title`].
    pub title: String,
    /// See [`Exercise::description`].
    pub description: String,
    /// See [`Exercise::instructions`].
    pub instructions: String,
    /// See [`Exercise::starter_code`].
    pub starter_code: Option<String>,
    /// A correct solution.
    pub solution: Option<String>,
    /// The hints, gentlest first.
    pub hints: Vec<String>,
    /// See [`Exercise::exercise_type`].
    pub exercise_type: ExerciseType,
    /// See [`Exercise::difficulty`].
    pub difficulty: Difficulty,
    /// See [`Exercise::programming_language`].
    pub programming_language: String,
    /// Topics, lower-case, without commas.
    pub topics: Vec<String>,
    /// See [`Exercise::test_cases`].
    pub test_cases: Option<String>,
    /// See [`Exercise::learning_objectives`]; if empty, the topics take their place.
    pub learning_objectives: Vec<String>,
    /// See [`Exercise::estimated_time_minutes`]; if `None`, the difficulty determines the time.
    pub estimated_time_minutes: Option<i32>,
    /// The prompt of a generated exercise.
    pub generation_prompt: Option<String>,
}

/// A student's progress in an exercise.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = user_exercises)]
pub struct UserExercise {
    /// Positive id.
    pub id: i64,
    /// The student.
    pub user_id: i64,
    /// The exercise.
    pub exercise_id: i64,
    /// The local day, if it is a daily exercise.
    pub daily_date: Option<LocalDate>,
    /// The student's progress.
    pub status: ExerciseStatus,
    /// The grade of the newest graded submission, 0 to 100.
    pub grade: Option<i32>,
    /// The feedback on that submission.
    pub feedback: Option<String>,
    /// The number of hints taken.
    pub hints_used: i32,
    /// The number of submitted solutions.
    pub submission_count: i32,
    /// The longest time reported by the client, in seconds.
    pub time_spent_seconds: i32,
    /// The points of the completion, including achievements.
    pub points_earned: i32,
    /// The time of the student's first action.
    pub started_at: Option<Timestamp>,
    /// The time of completion.
    pub completed_at: Option<Timestamp>,
    /// The student's local day of the completion.
    pub completed_on: Option<LocalDate>,
    /// The number of times that it was skipped.
    pub skip_count: i32,
    /// The local day from which a skipped exercise is offered again.
    pub due_on: Option<LocalDate>,
    /// The time when it was assigned or started.
    pub created_at: Timestamp,
}

/// An exercise with the student's progress.
pub type AssignedExercise = (Exercise, UserExercise);

/// A candidate for a student's daily exercise.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = exercises)]
pub struct Candidate {
    /// The exercise.
    pub id: i64,
    /// The topics, separated by commas.
    pub topics: String,
}

/// A filter of catalogue exercises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateFilter {
    /// Only exercises of this language.
    pub language: Option<String>,
    /// Only exercises of this difficulty.
    pub difficulty: Option<Difficulty>,
}

/// The choice of a student's daily exercise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DailyChoice {
    /// An existing exercise: from the catalogue, or skipped before.
    Existing(i64),
    /// A new exercise for this student only.
    Generated(Box<NewExercise>),
}

/// The result of a change of status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition<T> {
    /// The change is effective, now or from before.
    Done(T),
    /// The student has no such exercise.
    NotFound,
    /// The change is not allowed from this status; nothing changed.
    Forbidden(ExerciseStatus),
    /// The student has not started the exercise: it is neither a daily nor a generated one, and has no hint and no
    /// submission; nothing changed.
    NotStarted,
}

/// A hint that the student has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenHint {
    /// The exercise.
    pub exercise: Exercise,
    /// The text of the hint.
    pub hint: String,
    /// The number of the hint, from 1.
    pub step: i32,
    /// The number of hints of the exercise.
    pub steps: i32,
}

/// An idempotency key, with a fingerprint of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// The key chosen by the client, 1 to 64 characters, unique for the user.
    pub key: String,
    /// The SHA-256 of the request's content.
    pub fingerprint: [u8; 32],
}

impl RequestKey {
    /// Creates the key of a request with the content `parts`.
    pub fn new(key: String, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            // The length first, so that a part does not pass for two.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self { key, fingerprint: hash.finalize().into() }
    }
}

/// A submitted solution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubmission {
    /// The code.
    pub solution: String,
    /// The time spent on the exercise so far, in seconds.
    pub time_spent_seconds: Option<i32>,
    /// The idempotency key, valid for [`IDEMPOTENCY_KEY_LIFETIME`](super::IDEMPOTENCY_KEY_LIFETIME).
    pub request: Option<RequestKey>,
}

impl NewSubmission {
    /// Creates a solution without an idempotency key.
    pub fn new(solution: &str, time_spent_seconds: Option<i32>) -> Self {
        Self { solution: solution.to_owned(), time_spent_seconds, request: None }
    }
}

/// The result of submitting a solution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubmissionOutcome {
    /// The submission waits for its grade; it is new, or a repetition of an ungraded one.
    Ungraded(StoredSubmission),
    /// The submission is a repetition, and already has its grade.
    Graded(GradedSubmission),
}

/// A submission that is stored and waits for its grade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSubmission {
    /// Positive id.
    pub id: i64,
    /// The exercise.
    pub exercise: Exercise,
    /// The student's progress.
    pub user_exercise: UserExercise,
}

/// The moment of an action, as an instant and in the student's time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The instant.
    pub at: Timestamp,
    /// The student's local day at the instant.
    pub day: LocalDate,
    /// The student's time zone at the instant.
    pub zone: TimeZone,
}

impl Moment {
    /// Creates the moment of an instant in the time zone with this IANA name, or in UTC if the name is unknown.
    pub fn new(at: Timestamp, name: &str) -> Self {
        let zone = zone::zone(name);
        Self { at, day: zone::day_in(&zone, at), zone }
    }
}

/// A grade for a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grading {
    /// The grade, 0 to 100; [`PASSING_GRADE`] or more completes the exercise.
    pub grade: i32,
    /// The feedback.
    pub feedback: String,
    /// The strengths of the solution.
    pub strengths: Vec<String>,
    /// The possible improvements.
    pub improvements: Vec<String>,
}

/// The lowest grade that completes an exercise. Below it, an exercise counts as a struggle.
pub const PASSING_GRADE: i32 = 60;

/// A submission with its grade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GradedSubmission {
    /// The grade of the submission: the first one, if it was graded twice.
    pub grading: Grading,
    /// The student's progress after the grade.
    pub user_exercise: UserExercise,
    /// The solution, if the exercise is completed.
    pub solution: Option<String>,
}

/// A completion; repeated calls return the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The student's progress.
    pub user_exercise: UserExercise,
    /// The streak at the end of the day of the completion.
    pub streak: i32,
    /// The slugs of the unlocked achievements.
    pub achievements: Vec<String>,
}

/// An entry of a student's history.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = user_exercises)]
pub struct HistoryItem {
    /// The student's progress.
    #[diesel(embed)]
    pub user_exercise: UserExercise,
    /// The title of the exercise.
    #[diesel(select_expression = exercises::title)]
    pub title: String,
    /// The difficulty.
    #[diesel(select_expression = exercises::difficulty)]
    pub difficulty: Difficulty,
    /// The type.
    #[diesel(select_expression = exercises::exercise_type)]
    pub exercise_type: ExerciseType,
    /// The language.
    #[diesel(select_expression = exercises::programming_language)]
    pub programming_language: String,
    /// The topics, separated by commas.
    #[diesel(select_expression = exercises::topics)]
    pub topics: String,
}

impl HistoryItem {
    /// Returns the cursor of the page that follows this entry.
    pub fn cursor(&self) -> Cursor {
        Cursor::after_time(List::ExerciseHistory, self.user_exercise.created_at, self.user_exercise.id)
    }
}

/// An achievement.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = achievements)]
pub struct Achievement {
    /// Positive id.
    pub id: i64,
    /// The permanent name.
    pub slug: String,
    /// Short name.
    pub name: String,
    /// Playful name.
    pub title: String,
    /// One sentence.
    pub description: String,
    /// The category.
    pub category: AchievementCategory,
    /// The rarity.
    pub rarity: Rarity,
    /// The measure of the requirement.
    pub requirement: Requirement,
    /// The value that unlocks the achievement.
    pub requirement_value: i32,
    /// The requirement in words.
    pub requirement_description: String,
    /// The URL of a picture.
    pub icon_url: Option<String>,
    /// The symbol.
    pub icon: Option<String>,
    /// `#rrggbb`.
    pub badge_color: Option<String>,
    /// The points.
    pub points: i32,
    /// Set if the achievement is hidden until unlocked.
    pub hidden: bool,
}

/// A new achievement.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = achievements, treat_none_as_null = true)]
pub struct NewAchievement {
    /// See [`Achievement::slug`].
    pub slug: String,
    /// See [`Achievement::name`].
    pub name: String,
    /// See [`Achievement::title`].
    pub title: String,
    /// See [`Achievement::description`].
    pub description: String,
    /// See [`Achievement::category`].
    pub category: AchievementCategory,
    /// See [`Achievement::rarity`].
    pub rarity: Rarity,
    /// See [`Achievement::requirement`].
    pub requirement: Requirement,
    /// See [`Achievement::requirement_value`].
    pub requirement_value: i32,
    /// See [`Achievement::requirement_description`].
    pub requirement_description: String,
    /// See [`Achievement::icon`].
    pub icon: Option<String>,
    /// See [`Achievement::badge_color`].
    pub badge_color: Option<String>,
    /// See [`Achievement::points`].
    pub points: i32,
    /// See [`Achievement::hidden`].
    pub hidden: bool,
}

/// The result of loading a catalogue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatalogueCounts {
    /// The number of new exercises and achievements.
    pub created: usize,
    /// The number of changed exercises and achievements.
    pub updated: usize,
    /// The number of unchanged exercises and achievements.
    pub unchanged: usize,
}
