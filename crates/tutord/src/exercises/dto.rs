//! The JSON of the exercise routes.

use garde::Validate;
use serde::{Deserialize, Serialize};
use tutord_core::model::{
    AssignedExercise, Completion, Difficulty, Exercise, ExerciseStatus, ExerciseType, GradedSubmission, HistoryItem,
    TakenHint, UserExercise,
};
use tutord_core::{Page, PageRequest, Timestamp};
use utoipa::ToSchema;

use super::difficulty::{Adjustment, Analysis, Performance};
use crate::http::json::{not_blank, trimmed_option};
use crate::http::pagination::PageInfo;

#[derive(Serialize, ToSchema)]
pub(super) struct ExerciseItem {
    id: i64,
    title: String,
    description: String,
    instructions: String,
    starter_code: Option<String>,
    exercise_type: ExerciseType,
    difficulty: Difficulty,
    programming_language: String,
    /// Separated by commas.
    topics: String,
    test_cases: Option<String>,
    generated_by_ai: bool,
    created_at: Timestamp,
    /// Alias of `programming_language`.
    language: String,
    learning_objectives: Vec<String>,
    estimated_time_minutes: i32,
}

impl From<Exercise> for ExerciseItem {
    fn from(exercise: Exercise) -> Self {
        Self {
            language: exercise.programming_language.clone(),
            learning_objectives: exercise.learning_objectives(),
            estimated_time_minutes: exercise.estimated_time_minutes(),
            id: exercise.id,
            title: exercise.title,
            description: exercise.description,
            instructions: exercise.instructions,
            starter_code: exercise.starter_code,
            exercise_type: exercise.exercise_type,
            difficulty: exercise.difficulty,
            programming_language: exercise.programming_language,
            topics: exercise.topics,
            test_cases: exercise.test_cases,
            generated_by_ai: exercise.generated_by_ai,
            created_at: exercise.created_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct DailyResponse {
    exercise: ExerciseItem,
    user_exercise_id: i64,
    status: ExerciseStatus,
    hints_used: i32,
    /// Set if this request chose the exercise.
    is_new: bool,
    started_at: Option<Timestamp>,
}

impl DailyResponse {
    pub(super) fn new((exercise, user_exercise): (Exercise, UserExercise), is_new: bool) -> Self {
        Self {
            exercise: exercise.into(),
            user_exercise_id: user_exercise.id,
            status: user_exercise.status,
            hints_used: user_exercise.hints_used,
            is_new,
            started_at: user_exercise.started_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct HistoryLine {
    id: i64,
    exercise_id: i64,
    title: String,
    status: ExerciseStatus,
    difficulty: Difficulty,
    exercise_type: ExerciseType,
    programming_language: String,
    grade: Option<i32>,
    hints_used: i32,
    time_spent_seconds: i32,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    created_at: Timestamp,
}

impl From<HistoryItem> for HistoryLine {
    fn from(item: HistoryItem) -> Self {
        let user_exercise = item.user_exercise;
        Self {
            id: user_exercise.id,
            exercise_id: user_exercise.exercise_id,
            title: item.title,
            status: user_exercise.status,
            difficulty: item.difficulty,
            exercise_type: item.exercise_type,
            programming_language: item.programming_language,
            grade: user_exercise.grade,
            hints_used: user_exercise.hints_used,
            time_spent_seconds: user_exercise.time_spent_seconds,
            started_at: user_exercise.started_at,
            completed_at: user_exercise.completed_at,
            created_at: user_exercise.created_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct HistoryList {
    exercises: Vec<HistoryLine>,
    #[serde(flatten)]
    page: PageInfo,
}

impl HistoryList {
    pub(super) fn new(page: Page<HistoryItem>, request: &PageRequest) -> Self {
        Self { page: PageInfo::new(&page, request), exercises: page.items.into_iter().map(HistoryLine::from).collect() }
    }
}

#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct SubmitRequest {
    /// 1 to 50000 characters.
    #[serde(deserialize_with = "not_blank")]
    #[schema(min_length = 1, max_length = 50_000)]
    #[garde(length(chars, min = 1, max = 50_000))]
    pub(super) solution: String,
    /// Seconds spent on the exercise so far: 0 to 86400.
    #[schema(minimum = 0, maximum = 86_400)]
    #[garde(range(min = 0, max = 86_400))]
    pub(super) time_spent_seconds: Option<i32>,
    /// A repeated request with the same key within 24 hours stores nothing. At most 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    #[garde(length(chars, min = 1, max = 64))]
    pub(super) idempotency_key: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct SubmitResponse {
    /// 0 to 100; a grade of at least 60 completes the exercise.
    pub(super) grade: i32,
    pub(super) feedback: String,
    pub(super) strengths: Vec<String>,
    pub(super) improvements: Vec<String>,
    pub(super) status: ExerciseStatus,
    pub(super) hints_used: i32,
    pub(super) submission_count: i32,
    /// Absent until the exercise is completed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) solution: Option<String>,
}

impl From<GradedSubmission> for SubmitResponse {
    fn from(graded: GradedSubmission) -> Self {
        let GradedSubmission { grading, user_exercise, solution } = graded;
        Self {
            grade: grading.grade,
            feedback: grading.feedback,
            strengths: grading.strengths,
            improvements: grading.improvements,
            status: user_exercise.status,
            hints_used: user_exercise.hints_used,
            submission_count: user_exercise.submission_count,
            solution,
        }
    }
}

#[derive(Default, Deserialize, Validate, ToSchema)]
pub(super) struct HintRequest {
    /// The student's question, at most 2000 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(max_length = 2_000)]
    #[garde(length(chars, max = 2_000))]
    pub(super) context: Option<String>,
    /// The student's code so far, at most 10000 characters.
    #[schema(max_length = 10_000)]
    #[garde(length(chars, max = 10_000))]
    pub(super) current_code: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct HintResponse {
    pub(super) hint: String,
    pub(super) hints_used: i32,
    pub(super) hints_remaining: i32,
    /// 1 (a nudge) to 3 (nearly there).
    pub(super) difficulty_level: i32,
}

impl From<TakenHint> for HintResponse {
    fn from(TakenHint { hint, step, steps, .. }: TakenHint) -> Self {
        Self {
            hint,
            hints_used: step,
            hints_remaining: steps - step,
            difficulty_level: (step * 3).div_euclid(steps.max(1)).clamp(1, 3),
        }
    }
}

#[derive(Default, Deserialize, Validate, ToSchema)]
pub(super) struct CompleteRequest {
    /// Seconds spent on the exercise so far: 0 to 86400.
    #[schema(minimum = 0, maximum = 86_400)]
    #[garde(range(min = 0, max = 86_400))]
    pub(super) time_spent_seconds: Option<i32>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct CompleteResponse {
    exercise_id: i64,
    user_exercise_id: i64,
    status: ExerciseStatus,
    completed_at: Option<Timestamp>,
    streak_count: i32,
    achievements_unlocked: Vec<String>,
    /// Includes the points of achievements.
    points_earned: i32,
}

impl From<Completion> for CompleteResponse {
    fn from(completion: Completion) -> Self {
        let user_exercise = completion.user_exercise;
        Self {
            exercise_id: user_exercise.exercise_id,
            user_exercise_id: user_exercise.id,
            status: user_exercise.status,
            completed_at: user_exercise.completed_at,
            streak_count: completion.streak,
            achievements_unlocked: completion.achievements,
            points_earned: user_exercise.points_earned,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct SkipResponse {
    pub(super) message: &'static str,
    pub(super) exercise_id: i64,
    pub(super) status: ExerciseStatus,
}

#[derive(Default, Deserialize, Validate, ToSchema)]
pub(super) struct GenerateRequest {
    /// At most 200 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(min_length = 1, max_length = 200)]
    #[garde(length(chars, min = 1, max = 200))]
    pub(super) topic: Option<String>,
    #[garde(skip)]
    pub(super) difficulty: Option<Difficulty>,
    #[garde(skip)]
    pub(super) exercise_type: Option<ExerciseType>,
    /// A repeated request with the same key within 24 hours returns the same exercise. At most 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    #[garde(length(chars, min = 1, max = 64))]
    pub(super) idempotency_key: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct GenerateResponse {
    pub(super) exercise: ExerciseItem,
    pub(super) user_exercise_id: i64,
    pub(super) status: ExerciseStatus,
}

impl GenerateResponse {
    pub(super) fn new((exercise, user_exercise): AssignedExercise) -> Self {
        Self { exercise: exercise.into(), user_exercise_id: user_exercise.id, status: user_exercise.status }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct PerformanceResponse {
    total_exercises_analyzed: usize,
    /// 0 to 100; null without a grade.
    average_grade: Option<f64>,
    average_hints: f64,
    average_time_seconds: f64,
    /// 0 to 1.
    completion_rate: f64,
    consecutive_successes: usize,
    consecutive_struggles: usize,
}

impl From<Performance> for PerformanceResponse {
    fn from(performance: Performance) -> Self {
        Self {
            total_exercises_analyzed: performance.analyzed,
            average_grade: performance.average_grade,
            average_hints: performance.average_hints,
            average_time_seconds: performance.average_time_seconds,
            completion_rate: performance.completion_rate,
            consecutive_successes: performance.successes,
            consecutive_struggles: performance.struggles,
        }
    }
}

/// The direction in which a difficulty changes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Change {
    Increase,
    Decrease,
    Maintain,
}

impl Change {
    fn between(present: Difficulty, next: Difficulty) -> Self {
        match present.cmp(&next) {
            std::cmp::Ordering::Less => Self::Increase,
            std::cmp::Ordering::Equal => Self::Maintain,
            std::cmp::Ordering::Greater => Self::Decrease,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct AnalysisResponse {
    pub(super) user_id: i64,
    pub(super) should_adjust: bool,
    pub(super) current_difficulty: Difficulty,
    pub(super) recommended_difficulty: Difficulty,
    pub(super) reason: Change,
    pub(super) message: &'static str,
    pub(super) consecutive_successes: usize,
    pub(super) consecutive_struggles: usize,
    pub(super) performance_metrics: PerformanceResponse,
}

impl AnalysisResponse {
    pub(super) fn new(user_id: i64, Analysis { current, recommended, performance }: Analysis) -> Self {
        let reason = Change::between(current, recommended);
        Self {
            user_id,
            should_adjust: reason != Change::Maintain,
            current_difficulty: current,
            recommended_difficulty: recommended,
            reason,
            message: match reason {
                Change::Increase => "You solve these without help: try harder ones.",
                Change::Decrease => "The last ones were hard going: easier ones will build confidence.",
                Change::Maintain => "This difficulty suits you.",
            },
            consecutive_successes: performance.successes,
            consecutive_struggles: performance.struggles,
            performance_metrics: performance.into(),
        }
    }
}

#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct AdjustRequest {
    #[garde(skip)]
    pub(super) difficulty: Difficulty,
    /// At most 500 characters.
    #[serde(default, deserialize_with = "trimmed_option")]
    #[schema(max_length = 500)]
    #[garde(length(chars, max = 500))]
    pub(super) reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Notification {
    pub(super) message: String,
    pub(super) change_type: Change,
    pub(super) reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct AdjustResponse {
    pub(super) message: &'static str,
    pub(super) user_id: i64,
    pub(super) new_difficulty: Difficulty,
    pub(super) notification: Notification,
}

impl AdjustResponse {
    pub(super) fn new(user_id: i64, reason: Option<String>, change: Adjustment) -> Self {
        let Adjustment { previous, difficulty } = change;
        let change_type = Change::between(previous, difficulty);
        let message = match change_type {
            Change::Maintain => format!("Your exercises stay {difficulty}."),
            Change::Increase | Change::Decrease => format!("Your exercises change from {previous} to {difficulty}."),
        };
        Self {
            message: "Difficulty adjusted.",
            user_id,
            new_difficulty: difficulty,
            notification: Notification { message, change_type, reason },
        }
    }
}
