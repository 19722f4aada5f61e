//! Exercises and where a student stands with each.

use diesel::prelude::*;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{AchievementCategory, Difficulty, ExerciseStatus, ExerciseType, Rarity, Requirement};
use crate::model::time::{LocalDate, Timestamp};
use crate::page::{Cursor, List};
use crate::rules::streak;
use crate::schema::{achievements, exercises, user_exercises};

/// An exercise as every student may see it: without its solution and its hints.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = exercises)]
pub struct Exercise {
    /// Positive id.
    pub id: i64,
    /// What it is called.
    pub title: String,
    /// What is to be built, in a sentence or two.
    pub description: String,
    /// The task in full.
    pub instructions: String,
    /// What the student begins with.
    pub starter_code: Option<String>,
    /// What it trains.
    pub exercise_type: ExerciseType,
    /// How hard it is.
    pub difficulty: Difficulty,
    /// Lower-case name of the language.
    pub programming_language: String,
    /// What it is about: lower-case words, separated by commas.
    pub topics: String,
    /// Calls and what they should give, a line each.
    pub test_cases: Option<String>,
    /// What a student learns, where its author said so: a JSON array of texts.
    #[diesel(column_name = learning_objectives)]
    pub(crate) objectives_json: String,
    /// How long it takes, where its author said so.
    #[diesel(column_name = estimated_time_minutes)]
    pub(crate) estimated_minutes: Option<i32>,
    /// Whether a model wrote it.
    pub generated_by_ai: bool,
    /// When it was stored.
    pub created_at: Timestamp,
}

impl Exercise {
    /// The topics, one by one, each once: a completion counts once for each.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        let topics = self.topics.as_str();
        topics
            .split(',')
            .enumerate()
            .filter(move |(index, topic)| !topics.split(',').take(*index).any(|before| before == *topic))
            .map(|(_, topic)| topic)
            .filter(|topic| !topic.is_empty())
    }

    /// Returns what a student learns: in its author's words, or else the topics.
    pub fn learning_objectives(&self) -> Vec<String> {
        let authored: Vec<String> = serde_json::from_str(&self.objectives_json).unwrap_or_default();
        if authored.is_empty() { self.topics().map(|topic| format!("Practise {topic}")).collect() } else { authored }
    }

    /// Returns how many minutes it takes: as its author says, or else as the difficulty suggests.
    pub fn estimated_time_minutes(&self) -> i32 {
        self.estimated_minutes.unwrap_or(match self.difficulty {
            Difficulty::Easy => 10,
            Difficulty::Medium => 20,
            Difficulty::Hard => 40,
        })
    }
}

/// What of an exercise only the server knows.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = exercises)]
pub struct ExerciseKey {
    /// A correct solution.
    pub solution: Option<String>,
    /// The hints in steps: a JSON array of texts.
    #[diesel(column_name = hints)]
    pub(crate) hints_json: String,
}

impl ExerciseKey {
    /// The hints, the gentlest first.
    pub fn hints(&self) -> Vec<String> {
        serde_json::from_str(&self.hints_json).unwrap_or_default()
    }
}

/// A student's newest daily exercise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestDaily {
    /// The exercise, and where the student stands with it.
    pub assigned: Assigned,
    /// The date whose exercise it is, and when it was handed out.
    pub dated: (LocalDate, Timestamp),
}

/// An exercise to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewExercise {
    /// Names the exercise of a catalogue for good; `None` for a generated one.
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
    /// Hints in steps, the gentlest first.
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
    /// See [`Exercise::learning_objectives`]; empty: they follow from the topics.
    pub learning_objectives: Vec<String>,
    /// See [`Exercise::estimated_time_minutes`]; `None`: it follows from the difficulty.
    pub estimated_time_minutes: Option<i32>,
    /// What the model was asked, where it wrote the exercise.
    pub generation_prompt: Option<String>,
}

/// Where a student stands with an exercise.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = user_exercises)]
pub struct UserExercise {
    /// Positive id.
    pub id: i64,
    /// The student.
    pub user_id: i64,
    /// The exercise.
    pub exercise_id: i64,
    /// The local day whose daily exercise it is.
    pub daily_date: Option<LocalDate>,
    /// Where the student stands.
    pub status: ExerciseStatus,
    /// 0 to 100: of the newest graded submission.
    pub grade: Option<i32>,
    /// What was said of it.
    pub feedback: Option<String>,
    /// How many steps of hints were taken.
    pub hints_used: i32,
    /// How many solutions were handed in.
    pub submission_count: i32,
    /// The longest time that the client told.
    pub time_spent_seconds: i32,
    /// What the completion earned, achievements included.
    pub points_earned: i32,
    /// When the student first did something with it.
    pub started_at: Option<Timestamp>,
    /// When it was completed.
    pub completed_at: Option<Timestamp>,
    /// The student's local day of the completion.
    pub completed_on: Option<LocalDate>,
    /// How often it was skipped.
    pub skip_count: i32,
    /// The local day from which a skipped one is offered again.
    pub due_on: Option<LocalDate>,
    /// When it was given or taken up.
    pub created_at: Timestamp,
}

/// An exercise with where the student stands.
pub type Assigned = (Exercise, UserExercise);

/// What may become a student's daily exercise.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = exercises)]
pub struct Candidate {
    /// The exercise.
    pub id: i64,
    /// Its topics, separated by commas.
    pub topics: String,
}

/// Which exercises of the catalogue may be chosen from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Of this language alone.
    pub language: Option<String>,
    /// Of this difficulty alone.
    pub difficulty: Option<Difficulty>,
}

/// What a student's daily exercise is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Daily {
    /// One that exists: of the catalogue, or skipped before.
    Existing(i64),
    /// A new one for this student alone.
    Generated(Box<NewExercise>),
}

/// What became of a change of status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition<T> {
    /// It took effect, or had before.
    Done(T),
    /// There is no such exercise for this student.
    NotFound,
    /// It is not allowed from this status; nothing changed.
    Forbidden(ExerciseStatus),
    /// The student has not taken the exercise up: it is neither a daily nor a generated one, and has no hint and no
    /// submission; nothing changed.
    NotStarted,
}

/// A hint that was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintTaken {
    /// The exercise.
    pub exercise: Exercise,
    /// The text of this step.
    pub hint: String,
    /// Which step it is, from 1.
    pub step: i32,
    /// How many steps there are.
    pub steps: i32,
}

/// An idempotency key, with what tells the request that it came with from other ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Chosen by the client, 1 to 64 characters; of this user alone.
    pub key: String,
    /// SHA-256 of what the request asks for.
    pub fingerprint: [u8; 32],
}

impl RequestKey {
    /// The key of a request that asks for `parts`.
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

/// A solution as a student hands it in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSubmission {
    /// The code.
    pub solution: String,
    /// Seconds spent on the exercise so far.
    pub time_spent_seconds: Option<i32>,
    /// Recognises the same request when it is repeated within [`IDEMPOTENCY_KEY_LIFETIME`](super::IDEMPOTENCY_KEY_LIFETIME).
    pub request: Option<RequestKey>,
}

impl NewSubmission {
    /// One without an idempotency key.
    pub fn new(solution: &str, time_spent_seconds: Option<i32>) -> Self {
        Self { solution: solution.to_owned(), time_spent_seconds, request: None }
    }
}

/// What became of a solution that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// It waits for its grade: it is new, or was repeated before it got one.
    Ungraded(StoredSubmission),
    /// It was repeated, and has its grade.
    Graded(Graded),
}

/// A submission that is stored and waits for its grade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredSubmission {
    /// Positive id.
    pub id: i64,
    /// The exercise.
    pub exercise: Exercise,
    /// Where the student stands.
    pub user_exercise: UserExercise,
}

/// When something was done, by the server's clock and by the student's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The instant.
    pub at: Timestamp,
    /// The student's local day then.
    pub day: LocalDate,
    /// The student's time zone then.
    pub zone: TimeZone,
}

impl Moment {
    /// An instant in the time zone of this IANA name; in UTC where the name is not known.
    pub fn new(at: Timestamp, zone: &str) -> Self {
        let zone = streak::zone(zone);
        Self { at, day: streak::day_in(&zone, at), zone }
    }
}

/// A grade for a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grading {
    /// 0 to 100; from [`PASSING_GRADE`] on, the exercise is completed.
    pub grade: i32,
    /// What is said of it.
    pub feedback: String,
    /// What is good about it.
    pub strengths: Vec<String>,
    /// What would be better.
    pub improvements: Vec<String>,
}

/// The lowest grade that completes an exercise. Below it, an exercise counts as a struggle.
pub const PASSING_GRADE: i32 = 60;

/// A submission with its grade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graded {
    /// Of the submission: the first one, where it was graded twice.
    pub grading: Grading,
    /// Where the student stands now.
    pub user_exercise: UserExercise,
    /// The solution, where the exercise is completed now.
    pub solution: Option<String>,
}

/// A completion, the first time it is told and every later time alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Where the student stands.
    pub user_exercise: UserExercise,
    /// The streak at the end of the day of the completion.
    pub streak: i32,
    /// Slugs of the achievements that it unlocked.
    pub achievements: Vec<String>,
}

/// A line of a student's history.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = user_exercises)]
pub struct HistoryItem {
    /// Where the student stands.
    #[diesel(embed)]
    pub user_exercise: UserExercise,
    /// What the exercise is called.
    #[diesel(select_expression = exercises::title)]
    pub title: String,
    /// How hard it is.
    #[diesel(select_expression = exercises::difficulty)]
    pub difficulty: Difficulty,
    /// What it trains.
    #[diesel(select_expression = exercises::exercise_type)]
    pub exercise_type: ExerciseType,
    /// Its language.
    #[diesel(select_expression = exercises::programming_language)]
    pub programming_language: String,
    /// Its topics, separated by commas.
    #[diesel(select_expression = exercises::topics)]
    pub topics: String,
}

impl HistoryItem {
    /// Where the history goes on after this line.
    pub fn cursor(&self) -> Cursor {
        Cursor::after_time(List::ExerciseHistory, self.user_exercise.created_at, self.user_exercise.id)
    }
}

/// Something that students can achieve.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Serialize, Deserialize)]
#[diesel(table_name = achievements)]
pub struct Achievement {
    /// Positive id.
    pub id: i64,
    /// Names it for good.
    pub slug: String,
    /// Short name.
    pub name: String,
    /// Playful name.
    pub title: String,
    /// One sentence.
    pub description: String,
    /// What it rewards.
    pub category: AchievementCategory,
    /// How few have it.
    pub rarity: Rarity,
    /// What is measured.
    pub requirement: Requirement,
    /// The value that unlocks it.
    pub requirement_value: i32,
    /// The requirement in words.
    pub requirement_description: String,
    /// Address of a picture.
    pub icon_url: Option<String>,
    /// A character that stands for it.
    pub icon: Option<String>,
    /// `#rrggbb`.
    pub badge_color: Option<String>,
    /// What it is worth.
    pub points: i32,
    /// Whether it shows only once it is unlocked.
    pub hidden: bool,
}

/// An achievement to be stored.
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

/// What loading a catalogue changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CatalogueLoaded {
    /// Exercises and achievements that were new.
    pub created: usize,
    /// Those whose texts or values were changed.
    pub updated: usize,
    /// Those that were as they are.
    pub unchanged: usize,
}
