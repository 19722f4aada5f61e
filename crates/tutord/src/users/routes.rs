//! The routes of `/api/users`.

use axum::extract::State;
use axum::response::Response;
use tutord_core::model::{User, UserChanges};
use utoipa_axum::routes;

use super::current_streak;
use super::dto::{
    LearningFields, OnboardingCompleted, OnboardingRequest, OnboardingStatus, PreferencesUpdate, PreferencesUpdated,
    Profile, ProfileUpdate, ProfileUpdated, ProgressSummary,
};
use super::onboarding::{self, Questions};
use super::state::UsersState;
use crate::auth::{Authenticated, AuthenticatedProfile, Verified, VerifiedProfile};
use crate::http::error::ApiError;
use crate::http::json::Json;
use crate::http::openapi::Routes;
use crate::http::route_table::{Budget, RouteFacts};

/// The statement budget of each profile route, including authentication.
pub const PROFILE_BUDGET: u32 = 2;

/// The statement budgets of the routes.
const BUDGETS: &[Budget] = &[
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

/// The facts about the routes of this feature.
pub const ROUTES: RouteFacts = RouteFacts::new(BUDGETS);

/// The routes of this feature.
pub fn router() -> Routes<UsersState> {
    vec![
        routes!(read, update),
        routes!(read_profile),
        routes!(progress),
        routes!(onboarding_questions),
        routes!(onboarding_status),
        routes!(complete_onboarding),
        routes!(preferences, update_preferences),
    ]
}

async fn change(state: &UsersState, id: i64, changes: UserChanges) -> Result<User, ApiError> {
    if changes == UserChanges::default() {
        return Err(ApiError::validation("body", "the body must contain at least one field that is not null"));
    }
    state.store.update_user(id, changes).await?.ok_or_else(ApiError::unauthenticated)
}

/// Returns the profile of the user.
#[utoipa::path(get, path = "/me", tag = "users", responses((status = 200, body = Profile), (status = 401)))]
async fn read(
    State(state): State<UsersState>,
    AuthenticatedProfile(user): AuthenticatedProfile,
) -> Result<Response, ApiError> {
    // The streak is the only part of a profile that changes with time.
    let streak = current_streak(&user);
    state.responses.json(user, i64::from(streak), |user| Profile::new(user, streak))
}

/// Returns the profile of the user, at its second path.
#[utoipa::path(get, path = "/me/profile", tag = "users", responses((status = 200, body = Profile), (status = 401)))]
async fn read_profile(state: State<UsersState>, identity: AuthenticatedProfile) -> Result<Response, ApiError> {
    read(state, identity).await
}

/// Changes fields of the user's profile.
#[utoipa::path(put, path = "/me", tag = "users", request_body = ProfileUpdate,
    responses((status = 200, body = ProfileUpdated), (status = 401), (status = 403), (status = 422)))]
async fn update(
    State(state): State<UsersState>,
    Verified(identity): Verified,
    Json(request): Json<ProfileUpdate>,
) -> Result<axum::Json<ProfileUpdated>, ApiError> {
    let user = change(&state, identity.user_id, request.into()).await?;
    let streak = current_streak(&user);
    let profile = Profile::new(user, streak);
    Ok(axum::Json(ProfileUpdated { message: "Profile updated.", profile }))
}

/// Returns the user's streaks and counts.
#[utoipa::path(get, path = "/me/progress", tag = "users",
    responses((status = 200, body = ProgressSummary), (status = 401), (status = 403)))]
async fn progress(VerifiedProfile(user): VerifiedProfile) -> axum::Json<ProgressSummary> {
    axum::Json((&*user).into())
}

/// Returns the questions of the onboarding.
#[utoipa::path(get, path = "/onboarding/questions", tag = "users",
    responses((status = 200, body = Questions), (status = 401)))]
async fn onboarding_questions(State(state): State<UsersState>, _: Authenticated) -> axum::Json<Questions> {
    axum::Json(onboarding::questions(state.has_model))
}

/// Returns whether the onboarding is completed, and the answers so far.
#[utoipa::path(get, path = "/onboarding/status", tag = "users",
    responses((status = 200, body = OnboardingStatus), (status = 401)))]
async fn onboarding_status(AuthenticatedProfile(user): AuthenticatedProfile) -> axum::Json<OnboardingStatus> {
    axum::Json((&*user).into())
}

/// Answers all questions of the onboarding, once.
#[utoipa::path(post, path = "/onboarding", tag = "users", request_body = OnboardingRequest,
    responses((status = 200, body = OnboardingCompleted), (status = 401), (status = 403), (status = 409), (status = 422)))]
async fn complete_onboarding(
    State(state): State<UsersState>,
    Verified(identity): Verified,
    Json(request): Json<OnboardingRequest>,
) -> Result<axum::Json<OnboardingCompleted>, ApiError> {
    let completed = state.store.complete_onboarding(identity.user_id, request.into()).await?;
    let user = completed.ok_or_else(|| ApiError::conflict("the onboarding is already completed"))?;
    Ok(axum::Json(user.into()))
}

/// Returns the five learning fields.
#[utoipa::path(get, path = "/me/preferences", tag = "users",
    responses((status = 200, body = LearningFields), (status = 401)))]
async fn preferences(AuthenticatedProfile(user): AuthenticatedProfile) -> axum::Json<LearningFields> {
    axum::Json((&*user).into())
}

/// Changes some of the five learning fields.
#[utoipa::path(put, path = "/me/preferences", tag = "users", request_body = PreferencesUpdate,
    responses((status = 200, body = PreferencesUpdated), (status = 401), (status = 403), (status = 422)))]
async fn update_preferences(
    State(state): State<UsersState>,
    Verified(identity): Verified,
    Json(request): Json<PreferencesUpdate>,
) -> Result<axum::Json<PreferencesUpdated>, ApiError> {
    let user = change(&state, identity.user_id, request.into()).await?;
    Ok(axum::Json(PreferencesUpdated { message: "Preferences updated.", preferences: LearningFields::from(&user) }))
}
