//! The rules of exercises.

use tutord_core::Timestamp;
use tutord_core::model::{
    AssignedExercise, Completion, Difficulty, ExerciseStatus, ExerciseType, GradedSubmission, Grading, HistoryItem,
    Identity, Moment, NewSubmission, RequestKey, SubmissionOutcome, TakenHint, Transition, User,
};
use tutord_core::rules::streak::daily_date;

use super::daily::{self, DEFAULT_LANGUAGE};
use super::difficulty::{self, Adjustment, Analysis, Performance};
use super::dto::{CompleteRequest, GenerateRequest, HintRequest, SubmitRequest};
use super::generator::{self, ExerciseSpec, Review};
use super::state::ExercisesState;
use crate::auth::profile;
use crate::http::error::ApiError;
use crate::http::rate_limit::{Rule, Subject};

/// The default number of newest exercises in an analysis.
const ANALYZED: i64 = 10;
/// The maximum number of choices, if the student starts the chosen exercise meanwhile.
const CHOICES: usize = 3;

fn no_exercise() -> ApiError {
    ApiError::not_found("exercise")
}

/// Returns the present moment in the student's time zone.
fn moment(student: &User) -> Moment {
    Moment::new(Timestamp::now(), &student.timezone)
}

/// Returns the result of a transition, or a 409 if it is not allowed.
fn allowed<T>(transition: Transition<T>, action: &str) -> Result<T, ApiError> {
    match transition {
        Transition::Done(value) => Ok(value),
        Transition::NotFound => Err(no_exercise()),
        Transition::NotStarted => Err(ApiError::conflict(format!(
            "this exercise can't be {action}: it is not started; take a hint or submit a solution first"
        ))),
        Transition::Forbidden(status) => {
            let why = match status {
                ExerciseStatus::Completed => "it is completed",
                ExerciseStatus::Skipped => "it is skipped, and returns as a daily exercise",
                ExerciseStatus::Pending | ExerciseStatus::InProgress => "it is open",
            };
            Err(ApiError::conflict(format!("this exercise can't be {action}: {why}"))
                .with_detail("status", status.as_str()))
        }
    }
}

/// Returns the daily exercise of the student. The first request of a day chooses it.
pub(super) async fn daily(state: &ExercisesState, student: &User) -> Result<(AssignedExercise, bool), ApiError> {
    let moment = moment(student);
    if let Some(newest) = state.store.newest_daily(student.id).await?
        && daily_date(Some(newest.dated), moment.at, &moment.zone).is_none()
    {
        return Ok((newest.assigned, false));
    }
    for _ in 0..CHOICES {
        let chosen = daily::choose(state, student, moment.day).await?.ok_or_else(none_left)?;
        if let Some(assigned) = state.store.assign_daily(student.id, &moment, &chosen).await? {
            return Ok(assigned);
        }
    }
    Err(ApiError::overloaded("could not choose the daily exercise; retry shortly"))
}

fn none_left() -> ApiError {
    ApiError::not_found("new exercise")
}

/// Stores a solution, then requests a grade: if the model fails, the grade is lost, but not the solution.
pub(super) async fn submit(
    state: &ExercisesState,
    identity: &Identity,
    exercise_id: i64,
    request: SubmitRequest,
) -> Result<GradedSubmission, ApiError> {
    state.limits.check(Rule::Submit, &Subject::User(identity.user_id)).await?;
    let student = profile(state.store.as_ref(), identity.user_id).await?;
    let SubmitRequest { solution, time_spent_seconds, idempotency_key } = request;
    let request = idempotency_key.map(|key| {
        let time = time_spent_seconds.map(|seconds| seconds.to_string()).unwrap_or_default();
        RequestKey::new(key, &["submit", &exercise_id.to_string(), &solution, &time])
    });
    let new = NewSubmission { solution, time_spent_seconds, request };
    let stored = state.store.submit_solution(student.id, exercise_id, &new, Timestamp::now()).await?;
    let submission = match allowed(stored, "submitted")? {
        SubmissionOutcome::Ungraded(submission) => submission,
        SubmissionOutcome::Graded(graded) => return Ok(graded),
    };
    let explain = |error: ApiError| {
        error
            .with_detail("status", submission.user_exercise.status.as_str())
            .with_detail("submission_count", submission.user_exercise.submission_count)
    };
    let provider = state.llm.provider.clone().ok_or_else(|| explain(ApiError::llm_not_configured()))?;
    let max_tokens = state.llm.settings.max_reply_tokens;
    let review = generator::grade(provider.as_ref(), max_tokens, &submission, &new.solution)
        .await
        .map_err(|error| explain(generator::unavailable(&error, "your solution could not be graded; it is saved")))?;
    let Review { grade, feedback, strengths, improvements } = review;
    let grading = Grading { grade, feedback, strengths, improvements };
    let graded = state.store.grade_submission(student.id, &submission, &grading, moment(&student)).await?;
    let graded = allowed(graded, "graded")?;
    state.leaderboards.notify_one();
    Ok(graded)
}

/// Returns the next hint. If possible, the model adapts it to the student's code.
pub(super) async fn hint(
    state: &ExercisesState,
    identity: &Identity,
    exercise_id: i64,
    request: HintRequest,
) -> Result<TakenHint, ApiError> {
    state.limits.check(Rule::Hint, &Subject::User(identity.user_id)).await?;
    let taken = state.store.take_hint(identity.user_id, exercise_id, Timestamp::now()).await?;
    let mut taken =
        allowed(taken, "helped with")?.ok_or_else(|| ApiError::conflict("no hints are left for this exercise"))?;
    let written = [&request.context, &request.current_code].into_iter().flatten().any(|text| !text.trim().is_empty());
    if let Some(provider) = state.llm.provider.as_ref().filter(|_| written) {
        let written = (request.context.as_deref(), request.current_code.as_deref());
        let step = (taken.step, taken.steps);
        let (provider, max_tokens, student) =
            (provider.as_ref(), state.llm.settings.max_reply_tokens, identity.user_id);
        match generator::hint(provider, max_tokens, student, &taken.exercise, step, &taken.hint, written).await {
            Ok(fitted) => taken.hint = fitted,
            Err(error) => tracing::warn!(%error, "could not generate the hint; using the catalogue"),
        }
    }
    Ok(taken)
}

pub(super) async fn complete(
    state: &ExercisesState,
    identity: &Identity,
    exercise_id: i64,
    request: CompleteRequest,
) -> Result<Completion, ApiError> {
    let student = profile(state.store.as_ref(), identity.user_id).await?;
    let time = request.time_spent_seconds;
    let completed = state.store.complete_exercise(student.id, exercise_id, time, moment(&student)).await?;
    let completed = allowed(completed, "completed")?;
    state.leaderboards.notify_one();
    Ok(completed)
}

pub(super) async fn skip(state: &ExercisesState, identity: &Identity, exercise_id: i64) -> Result<(), ApiError> {
    let student = profile(state.store.as_ref(), identity.user_id).await?;
    allowed(state.store.skip_exercise(student.id, exercise_id, moment(&student)).await?, "skipped")
}

pub(super) async fn generate(
    state: &ExercisesState,
    identity: &Identity,
    request: GenerateRequest,
) -> Result<AssignedExercise, ApiError> {
    if state.llm.provider.is_none() {
        return Err(ApiError::llm_not_configured());
    }
    let GenerateRequest { topic, difficulty, exercise_type, idempotency_key } = request;
    let request = idempotency_key.map(|key| {
        let difficulty = difficulty.map(Difficulty::as_str).unwrap_or_default();
        let exercise_type = exercise_type.map(ExerciseType::as_str).unwrap_or_default();
        RequestKey::new(key, &["generate", topic.as_deref().unwrap_or_default(), difficulty, exercise_type])
    });
    if let Some(request) = &request
        && let Some(created) = state.store.created_exercise(identity.user_id, request).await?
    {
        return Ok(created);
    }
    state.limits.check(Rule::generate(identity.role), &Subject::User(identity.user_id)).await?;
    let student = profile(state.store.as_ref(), identity.user_id).await?;
    let spec = ExerciseSpec {
        language: daily::language_of(&student).unwrap_or_else(|| DEFAULT_LANGUAGE.to_owned()),
        difficulty: match difficulty {
            Some(difficulty) => difficulty,
            None => daily::difficulty_of(state, &student).await?,
        },
        exercise_type: exercise_type.unwrap_or(ExerciseType::Practical),
        topic,
    };
    let new = generator::exercise(state, &student, &spec).await?;
    Ok(state.store.create_exercise(student.id, &new, request.as_ref()).await?)
}

pub(super) async fn performance(
    state: &ExercisesState,
    identity: &Identity,
    limit: i64,
) -> Result<Performance, ApiError> {
    Ok(difficulty::performance(&state.store.ended_exercises(identity.user_id, limit).await?))
}

pub(super) async fn analyze(state: &ExercisesState, student: &User) -> Result<Analysis, ApiError> {
    let current = daily::difficulty_of(state, student).await?;
    let ended = state.store.ended_exercises(student.id, ANALYZED).await?;
    let of_difficulty: Vec<HistoryItem> = ended.into_iter().filter(|item| item.difficulty == current).collect();
    let performance = difficulty::performance(&of_difficulty);
    Ok(Analysis { current, recommended: difficulty::recommended(current, &performance), performance })
}

pub(super) async fn adjust(
    state: &ExercisesState,
    identity: &Identity,
    difficulty: Difficulty,
) -> Result<Adjustment, ApiError> {
    let student = profile(state.store.as_ref(), identity.user_id).await?;
    let previous = daily::difficulty_of(state, &student).await?;
    state.store.set_exercise_difficulty(student.id, difficulty).await?;
    Ok(Adjustment { previous, difficulty })
}
