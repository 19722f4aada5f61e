//! The routes of `/api/exercises`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tutord_core::List;
use tutord_core::model::ExerciseStatus;
use utoipa_axum::routes;

use super::dto::{
    AdjustRequest, AdjustResponse, AnalysisResponse, CompleteRequest, CompleteResponse, DailyResponse, ExerciseItem,
    GenerateRequest, GenerateResponse, HintRequest, HintResponse, HistoryList, PerformanceResponse, SkipResponse,
    SubmitRequest, SubmitResponse,
};
use super::service;
use super::state::ExercisesState;
use crate::auth::{Verified, VerifiedProfile};
use crate::http::error::ApiError;
use crate::http::json::{Json, OptionalJson};
use crate::http::openapi::Routes;
use crate::http::pagination::{Bounds, PageParams, integer};
use crate::http::path::Id;
use crate::http::query::Query;
use crate::http::route_table::{Budget, RouteFacts};

/// The statement budget of this route once the daily exercise is chosen, including authentication.
pub const DAILY_BUDGET: u32 = 3;
/// The statement budget of this route, including authentication.
pub const EXERCISE_BUDGET: u32 = 2;
/// The statement budget of this route, including authentication.
pub const HISTORY_BUDGET: u32 = 3;
/// The statement budget of this route, including authentication.
pub const PERFORMANCE_BUDGET: u32 = 2;

/// The statement budget of the routes that analyse and set the difficulty, including authentication.
pub const DIFFICULTY_BUDGET: u32 = 4;
/// The statement budget of a hint or a skipped exercise, including authentication; one statement starts the exercise.
pub const STEP_BUDGET: u32 = 9;
/// The statement budget of a completion, including authentication: about 23, one or two more for each topic and
/// achievement, and two for the first completion of a language in a week, which creates its leaderboards.
pub const COMPLETE_BUDGET: u32 = 40;

pub(crate) const HISTORY: Bounds = Bounds::new(20, 100);

/// The additional statements of the first request of the day, which chooses the exercise.
const CHOICE_BUDGET: u32 = 24;

/// The additional statements of an idempotency key: look it up, lock the student, look it up again, read the stored
/// result, and store the key.
const KEY_BUDGET: u32 = 5;

/// The statement budgets of the routes.
const BUDGETS: &[Budget] = &[
    ("GET", "/daily", DAILY_BUDGET + CHOICE_BUDGET),
    ("GET", "/history", HISTORY_BUDGET),
    // The look-up of a generated exercise reads the catalogue first.
    ("GET", "/{id}", EXERCISE_BUDGET + 1),
    ("POST", "/{id}/submit", COMPLETE_BUDGET + STEP_BUDGET + KEY_BUDGET),
    ("POST", "/{id}/hint", STEP_BUDGET),
    ("POST", "/{id}/complete", COMPLETE_BUDGET),
    ("POST", "/{id}/skip", STEP_BUDGET),
    ("POST", "/generate", STEP_BUDGET + KEY_BUDGET),
    ("GET", "/difficulty/performance", PERFORMANCE_BUDGET),
    ("GET", "/difficulty/analyze", DIFFICULTY_BUDGET),
    ("POST", "/difficulty/adjust", DIFFICULTY_BUDGET),
];

/// The facts about the routes of this feature.
pub const ROUTES: RouteFacts = RouteFacts {
    budgets: BUDGETS,
    awaits_model: &["/daily", "/generate", "/{id}/submit", "/{id}/hint"],
    pages: &[("/history", HISTORY)],
};

/// The routes of this feature.
pub fn router() -> Routes<ExercisesState> {
    vec![
        routes!(daily),
        routes!(history),
        routes!(generate),
        routes!(performance),
        routes!(analyze),
        routes!(adjust),
        routes!(read),
        routes!(submit),
        routes!(hint),
        routes!(complete),
        routes!(skip),
    ]
}

/// Returns the exercise of the student's local day; repeated requests return the same one.
#[utoipa::path(get, path = "/daily", tag = "exercises",
    responses((status = 200, body = DailyResponse), (status = 401), (status = 403), (status = 404, description = "the student has started every exercise")))]
async fn daily(
    State(state): State<ExercisesState>,
    VerifiedProfile(student): VerifiedProfile,
) -> Result<axum::Json<DailyResponse>, ApiError> {
    let (assigned, is_new) = service::daily(&state, &student).await?;
    Ok(axum::Json(DailyResponse::new(assigned, is_new)))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct StatusQuery {
    /// Only exercises with this status.
    #[param(inline)]
    status: Option<ExerciseStatus>,
}

/// Lists the student's exercises, newest first.
#[utoipa::path(get, path = "/history", tag = "exercises", params(StatusQuery, PageParams),
    responses((status = 200, body = HistoryList), (status = 401), (status = 403), (status = 422)))]
async fn history(
    State(state): State<ExercisesState>,
    Verified(identity): Verified,
    Query(StatusQuery { status }): Query<StatusQuery>,
    Query(page): Query<PageParams>,
) -> Result<axum::Json<HistoryList>, ApiError> {
    let request = page.parse(HISTORY, List::ExerciseHistory)?;
    let found = state.store.exercise_history(identity.user_id, status, &request).await?;
    Ok(axum::Json(HistoryList::new(found, &request)))
}

/// Returns an exercise of the catalogue, or one generated for this student.
#[utoipa::path(get, path = "/{id}", tag = "exercises", params(("id" = i64, Path)),
    responses((status = 200, body = ExerciseItem), (status = 401), (status = 403), (status = 404), (status = 422)))]
async fn read(
    State(state): State<ExercisesState>,
    Verified(identity): Verified,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let found = state.store.exercise(identity.user_id, id).await?.ok_or_else(|| ApiError::not_found("exercise"))?;
    state.responses.json(found, 0, ExerciseItem::from)
}

/// Submits a solution and waits for its grade; a grade of at least 60 completes the exercise.
#[utoipa::path(post, path = "/{id}/submit", tag = "exercises", params(("id" = i64, Path)), request_body = SubmitRequest,
    responses((status = 200, body = SubmitResponse), (status = 401), (status = 403), (status = 404), (status = 409), (status = 422),
        (status = 503, description = "the solution is stored")))]
async fn submit(
    State(state): State<ExercisesState>,
    Verified(identity): Verified,
    Id(id): Id,
    Json(request): Json<SubmitRequest>,
) -> Result<axum::Json<SubmitResponse>, ApiError> {
    Ok(axum::Json(service::submit(&state, &identity, id, request).await?.into()))
}

/// Returns the next hint.
#[utoipa::path(post, path = "/{id}/hint", tag = "exercises", params(("id" = i64, Path)), request_body = Option<HintRequest>,
    responses((status = 200, body = HintResponse), (status = 401), (status = 403), (status = 404), (status = 409), (status = 422), (status = 429)))]
async fn hint(
    State(state): State<ExercisesState>,
    Verified(identity): Verified,
    Id(id): Id,
    OptionalJson(request): OptionalJson<HintRequest>,
) -> Result<axum::Json<HintResponse>, ApiError> {
    Ok(axum::Json(service::hint(&state, &identity, id, request.unwrap_or_default()).await?.into()))
}

/// Completes an exercise that the student has started (otherwise 409). Counts once; repeated calls return the same
/// result.
#[utoipa::path(post, path = "/{id}/complete", tag = "exercises", params(("id" = i64, Path)), request_body = Option<CompleteRequest>,
    responses((status = 200, body = CompleteResponse), (status = 401), (status = 403), (status = 404), (status = 409), (status = 422)))]
async fn complete(
    State(state): State<ExercisesState>,
    Verified(identity): Verified,
    Id(id): Id,
    OptionalJson(request): OptionalJson<CompleteRequest>,
) -> Result<axum::Json<CompleteResponse>, ApiError> {
    Ok(axum::Json(service::complete(&state, &identity, id, request.unwrap_or_default()).await?.into()))
}

/// Skips an exercise, which returns as a daily exercise later.
#[utoipa::path(post, path = "/{id}/skip", tag = "exercises", params(("id" = i64, Path)),
    responses((status = 200, body = SkipResponse), (status = 401), (status = 403), (status = 404), (status = 409)))]
async fn skip(
    State(state): State<ExercisesState>,
    Verified(identity): Verified,
    Id(id): Id,
) -> Result<axum::Json<SkipResponse>, ApiError> {
    service::skip(&state, &identity, id).await?;
    Ok(axum::Json(SkipResponse { message: "Exercise skipped.", exercise_id: id, status: ExerciseStatus::Skipped }))
}

/// Generates an exercise for this student with the model.
#[utoipa::path(post, path = "/generate", tag = "exercises", request_body = Option<GenerateRequest>,
    responses((status = 201, body = GenerateResponse), (status = 401), (status = 403), (status = 422), (status = 429), (status = 503)))]
async fn generate(
    State(state): State<ExercisesState>,
    Verified(identity): Verified,
    OptionalJson(request): OptionalJson<GenerateRequest>,
) -> Result<Response, ApiError> {
    let generated = service::generate(&state, &identity, request.unwrap_or_default()).await?;
    Ok((StatusCode::CREATED, axum::Json(GenerateResponse::new(generated))).into_response())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct LimitQuery {
    /// The number of newest exercises to analyse: 1 to 100, default 10.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 100)]
    limit: Option<String>,
}

/// Returns the performance in the newest completed or skipped exercises.
#[utoipa::path(get, path = "/difficulty/performance", tag = "exercises", params(LimitQuery),
    responses((status = 200, body = PerformanceResponse), (status = 401), (status = 403), (status = 422)))]
async fn performance(
    State(state): State<ExercisesState>,
    Verified(identity): Verified,
    Query(LimitQuery { limit }): Query<LimitQuery>,
) -> Result<axum::Json<PerformanceResponse>, ApiError> {
    let limit = integer("limit", limit.as_deref(), 1, 100)?.unwrap_or(10);
    Ok(axum::Json(service::performance(&state, &identity, limit).await?.into()))
}

/// Returns whether harder or easier exercises would suit the student.
#[utoipa::path(get, path = "/difficulty/analyze", tag = "exercises",
    responses((status = 200, body = AnalysisResponse), (status = 401), (status = 403)))]
async fn analyze(
    State(state): State<ExercisesState>,
    VerifiedProfile(student): VerifiedProfile,
) -> Result<axum::Json<AnalysisResponse>, ApiError> {
    let analysis = service::analyze(&state, &student).await?;
    Ok(axum::Json(AnalysisResponse::new(student.id, analysis)))
}

/// Sets the difficulty of future daily exercises.
#[utoipa::path(post, path = "/difficulty/adjust", tag = "exercises", request_body = AdjustRequest,
    responses((status = 200, body = AdjustResponse), (status = 401), (status = 403), (status = 422)))]
async fn adjust(
    State(state): State<ExercisesState>,
    Verified(identity): Verified,
    Json(request): Json<AdjustRequest>,
) -> Result<axum::Json<AdjustResponse>, ApiError> {
    let adjustment = service::adjust(&state, &identity, request.difficulty).await?;
    Ok(axum::Json(AdjustResponse::new(identity.user_id, request.reason, adjustment)))
}
