//! The routes of `/api/users`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use tutord_core::model::{User, UserChanges};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::onboarding::{self, Questions};
use super::wire::{
    LearningFields, OnboardingCompleted, OnboardingRequest, OnboardingStatus, PreferencesUpdate, PreferencesUpdated,
    Profile, ProfileUpdate, ProfileUpdated, ProgressSummary,
};
use crate::app::App;
use crate::auth::{Authenticated, Verified};
use crate::error::ApiError;
use crate::http::budgets::Budget;
use crate::http::json::Json;
use crate::progress::standing_streak;

/// The statement budget of each profile route, including authentication.
pub const PROFILE_BUDGET: u32 = 2;

/// The statement budgets of the routes.
pub const BUDGETS: &[Budget] = &[
    ("GET", "/me", PROFILE_BUDGET),
    ("PUT", "/me", PROFILE_BUDGET),
    ("GET", "/me/profile", PROFILE_BUDGET),
    ("GET", "/me/progress", PROFILE_BUDGET),
    ("GET", "/me/preferences", PROFILE_BUDGET),
    ("PUT", "/me/preferences", PROFILE_BUDGET),
    ("GET", "/onboarding/questions", PROFILE_BUDGET),
    ("GET", "/onboarding/status", PROFILE_BUDGET),
    ("POST", "/onboarding", PROFILE_BUDGET + 1),
];

/// The routes of this feature.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(read, update))
        .routes(routes!(read_profile))
        .routes(routes!(progress))
        .routes(routes!(onboarding_questions))
        .routes(routes!(onboarding_status))
        .routes(routes!(complete_onboarding))
        .routes(routes!(preferences, update_preferences))
        .merge(crate::progress::own_achievements())
}

async fn load(app: &App, id: i64) -> Result<Arc<User>, ApiError> {
    // The session's user is gone only when it was deleted after the look-up of the session.
    app.store.user(id).await?.ok_or_else(ApiError::unauthenticated)
}

async fn change(app: &App, id: i64, changes: UserChanges) -> Result<User, ApiError> {
    if changes == UserChanges::default() {
        return Err(ApiError::validation("body", "the body must contain at least one field that is not null"));
    }
    app.store.update_user(id, changes).await?.ok_or_else(ApiError::unauthenticated)
}

/// Returns the profile of the user.
#[utoipa::path(get, path = "/me", tag = "users", responses((status = 200, body = Profile), (status = 401)))]
async fn read(State(app): State<App>, Authenticated(identity): Authenticated) -> Result<Response, ApiError> {
    let user = load(&app, identity.user_id).await?;
    // The one thing in a profile that changes with the time.
    let streak = standing_streak(&user);
    app.answers.json(user, i64::from(streak), |user| Profile::new(user, streak))
}

/// Returns the profile of the user, at its second path.
#[utoipa::path(get, path = "/me/profile", tag = "users", responses((status = 200, body = Profile), (status = 401)))]
async fn read_profile(state: State<App>, identity: Authenticated) -> Result<Response, ApiError> {
    read(state, identity).await
}

/// Changes fields of the user's profile.
#[utoipa::path(put, path = "/me", tag = "users", request_body = ProfileUpdate,
    responses((status = 200, body = ProfileUpdated), (status = 401), (status = 403), (status = 422)))]
async fn update(
    State(app): State<App>,
    Verified(identity): Verified,
    Json(request): Json<ProfileUpdate>,
) -> Result<axum::Json<ProfileUpdated>, ApiError> {
    let user = change(&app, identity.user_id, request.into()).await?;
    let streak = standing_streak(&user);
    let profile = Profile::new(user, streak);
    Ok(axum::Json(ProfileUpdated { message: "Profile updated.", profile }))
}

/// Returns the user's streaks and counts.
#[utoipa::path(get, path = "/me/progress", tag = "users",
    responses((status = 200, body = ProgressSummary), (status = 401), (status = 403)))]
async fn progress(
    State(app): State<App>,
    Verified(identity): Verified,
) -> Result<axum::Json<ProgressSummary>, ApiError> {
    Ok(axum::Json(load(&app, identity.user_id).await?.as_ref().into()))
}

/// Returns the questions of the onboarding.
#[utoipa::path(get, path = "/onboarding/questions", tag = "users",
    responses((status = 200, body = Questions), (status = 401)))]
async fn onboarding_questions(State(app): State<App>, _: Authenticated) -> axum::Json<Questions> {
    axum::Json(onboarding::questions(app.llm.is_some()))
}

/// Returns whether the onboarding is completed, and the answers so far.
#[utoipa::path(get, path = "/onboarding/status", tag = "users",
    responses((status = 200, body = OnboardingStatus), (status = 401)))]
async fn onboarding_status(
    State(app): State<App>,
    Authenticated(identity): Authenticated,
) -> Result<axum::Json<OnboardingStatus>, ApiError> {
    Ok(axum::Json(load(&app, identity.user_id).await?.as_ref().into()))
}

/// Answers all questions of the onboarding, once.
#[utoipa::path(post, path = "/onboarding", tag = "users", request_body = OnboardingRequest,
    responses((status = 200, body = OnboardingCompleted), (status = 401), (status = 403), (status = 409), (status = 422)))]
async fn complete_onboarding(
    State(app): State<App>,
    Verified(identity): Verified,
    Json(request): Json<OnboardingRequest>,
) -> Result<axum::Json<OnboardingCompleted>, ApiError> {
    let completed = app.store.complete_onboarding(identity.user_id, request.into()).await?;
    let user = completed.ok_or_else(|| ApiError::conflict("the onboarding is already completed"))?;
    Ok(axum::Json(user.into()))
}

/// Returns the five learning fields.
#[utoipa::path(get, path = "/me/preferences", tag = "users",
    responses((status = 200, body = LearningFields), (status = 401)))]
async fn preferences(
    State(app): State<App>,
    Authenticated(identity): Authenticated,
) -> Result<axum::Json<LearningFields>, ApiError> {
    Ok(axum::Json(load(&app, identity.user_id).await?.as_ref().into()))
}

/// Changes some of the five learning fields.
#[utoipa::path(put, path = "/me/preferences", tag = "users", request_body = PreferencesUpdate,
    responses((status = 200, body = PreferencesUpdated), (status = 401), (status = 403), (status = 422)))]
async fn update_preferences(
    State(app): State<App>,
    Verified(identity): Verified,
    Json(request): Json<PreferencesUpdate>,
) -> Result<axum::Json<PreferencesUpdated>, ApiError> {
    let user = change(&app, identity.user_id, request.into()).await?;
    Ok(axum::Json(PreferencesUpdated { message: "Preferences updated.", preferences: LearningFields::from(&user) }))
}
