//! The routes of `/api/progress`.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use tutord_core::model::{AchievementCategory, Period};
use tutord_core::{List, LocalDate};
use utoipa_axum::routes;

use super::dto::{
    AchievementList, AroundResponse, BadgeList, CalculatedLevel, HistoryResponse, LeaderboardList, OptOutRequest,
    OptOutResponse, ProgressResponse, SkillList, Statistics, StreakRequest, StreakResponse, TopicRequest,
};
use super::export::{self, Export, Format};
use super::leaderboard::{BoardQuery, ENTRIES, NEIGHBOURS};
use super::service::{self, Days};
use super::state::ProgressState;
use crate::auth::{Verified, VerifiedProfile};
use crate::http::error::ApiError;
use crate::http::json::{Json, OptionalJson};
use crate::http::openapi::Routes;
use crate::http::pagination::{PageParams, integer};
use crate::http::query::Query;
use crate::http::rate_limit::{Rule, Subject};
use crate::http::route_table::{Budget, RouteFacts};

/// The statement budget of this route, including authentication.
pub const PROGRESS_BUDGET: u32 = 5;
/// The statement budget of achievements and badges, including authentication.
pub const ACHIEVEMENTS_BUDGET: u32 = 4;
/// The statement budget of this route, including authentication.
pub const STATISTICS_BUDGET: u32 = 3;
/// The statement budget of this route, including authentication.
pub const HISTORY_BUDGET: u32 = 3;
/// The statement budget of this route, including authentication.
pub const SKILLS_BUDGET: u32 = 2;
/// The statement budget of the level of one topic, including authentication.
pub const LEVEL_BUDGET: u32 = 2;
/// The statement budget of the streak, including authentication.
pub const STREAK_BUDGET: u32 = 3;
/// The statement budget of opting out of leaderboards, including authentication.
pub const OPT_OUT_BUDGET: u32 = 8;
/// The statement budget of this route, including authentication.
pub const LEADERBOARD_BUDGET: u32 = 5;
/// The statement budget of a student's neighbourhood on a leaderboard, including authentication.
pub const AROUND_BUDGET: u32 = 8;

/// The maximum number of days of a history.
const MAX_DAYS: i64 = 366;

/// The statement budgets of the routes.
const BUDGETS: &[Budget] = &[
    ("GET", "", PROGRESS_BUDGET),
    ("GET", "/", PROGRESS_BUDGET),
    ("GET", "/achievements", ACHIEVEMENTS_BUDGET),
    ("GET", "/badges", ACHIEVEMENTS_BUDGET),
    ("POST", "/update-streak", STREAK_BUDGET),
    ("GET", "/statistics", STATISTICS_BUDGET),
    ("GET", "/history", HISTORY_BUDGET),
    ("GET", "/skill-levels", SKILLS_BUDGET),
    ("GET", "/skills", SKILLS_BUDGET),
    ("POST", "/calculate-skill-level", LEVEL_BUDGET),
    ("GET", "/leaderboard", LEADERBOARD_BUDGET),
    ("GET", "/leaderboard/me", AROUND_BUDGET),
    ("PUT", "/leaderboard/me", OPT_OUT_BUDGET),
    // The statements before the response begins; the exercises are read while it is sent.
    ("GET", "/export", PROGRESS_BUDGET),
];

/// The facts about the routes of this feature.
pub const ROUTES: RouteFacts = RouteFacts { budgets: BUDGETS, awaits_model: &[], pages: &[("/leaderboard", ENTRIES)] };
/// The facts about the route under `/api/users`.
pub const USERS_ROUTES: RouteFacts = RouteFacts::new(&[("GET", "/me/achievements", ACHIEVEMENTS_BUDGET)]);

/// The routes of this feature.
pub fn router() -> Routes<ProgressState> {
    vec![
        routes!(overview),
        routes!(achievements),
        routes!(badges),
        routes!(update_streak),
        routes!(statistics),
        routes!(history),
        routes!(skill_levels),
        routes!(calculate_skill_level),
        routes!(top),
        routes!(around, opt_out),
        routes!(export),
    ]
}

/// Paths of the existing frontend; see `http::aliases`.
pub(crate) fn aliases() -> Routes<ProgressState> {
    vec![routes!(skills), routes!(overview_with_slash)]
}

/// `/api/users/me/achievements`.
pub(crate) fn own_achievements() -> Routes<ProgressState> {
    vec![routes!(me_achievements)]
}

/// Returns the sums of all time.
#[utoipa::path(get, path = "/", tag = "progress",
    responses((status = 200, body = ProgressResponse), (status = 401), (status = 403)))]
async fn overview(
    State(state): State<ProgressState>,
    VerifiedProfile(user): VerifiedProfile,
) -> Result<axum::Json<ProgressResponse>, ApiError> {
    let found = state.store.progress(user.id).await?;
    Ok(axum::Json(ProgressResponse::new(&user, found)))
}

/// Returns the sums of all time; clients of an earlier service were redirected to the path with a slash.
#[utoipa::path(get, path = "/progress/", tag = "progress",
    responses((status = 200, body = ProgressResponse), (status = 401), (status = 403)))]
async fn overview_with_slash(
    state: State<ProgressState>,
    user: VerifiedProfile,
) -> Result<axum::Json<ProgressResponse>, ApiError> {
    overview(state, user).await
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct AchievementQuery {
    /// Only achievements of this category.
    #[param(inline)]
    category: Option<AchievementCategory>,
    /// Only unlocked achievements.
    #[serde(default)]
    unlocked_only: bool,
}

/// Lists the achievements with the student's progress; hidden ones only once unlocked.
#[utoipa::path(get, path = "/achievements", tag = "progress", params(AchievementQuery),
    responses((status = 200, body = AchievementList), (status = 401), (status = 403), (status = 422)))]
async fn achievements(
    State(state): State<ProgressState>,
    Verified(identity): Verified,
    Query(query): Query<AchievementQuery>,
) -> Result<axum::Json<AchievementList>, ApiError> {
    let found = service::achievements(&state, identity.user_id, query.category).await?;
    Ok(axum::Json(AchievementList::new(found, query.unlocked_only)))
}

/// Lists the achievements; at the path `/api/users/me/achievements`.
#[utoipa::path(get, path = "/me/achievements", tag = "users", params(AchievementQuery),
    responses((status = 200, body = AchievementList), (status = 401), (status = 403), (status = 422)))]
async fn me_achievements(
    state: State<ProgressState>,
    identity: Verified,
    query: Query<AchievementQuery>,
) -> Result<axum::Json<AchievementList>, ApiError> {
    achievements(state, identity, query).await
}

/// Lists the achievements as badges, earned or not.
#[utoipa::path(get, path = "/badges", tag = "progress",
    responses((status = 200, body = BadgeList), (status = 401), (status = 403)))]
async fn badges(
    State(state): State<ProgressState>,
    Verified(identity): Verified,
) -> Result<axum::Json<BadgeList>, ApiError> {
    Ok(axum::Json(service::achievements(&state, identity.user_id, None).await?.into()))
}

/// Returns the student's streak.
#[utoipa::path(post, path = "/update-streak", tag = "progress", request_body = Option<StreakRequest>,
    responses((status = 200, body = StreakResponse), (status = 401), (status = 403), (status = 422)))]
async fn update_streak(
    State(state): State<ProgressState>,
    VerifiedProfile(user): VerifiedProfile,
    OptionalJson(request): OptionalJson<StreakRequest>,
) -> Result<axum::Json<StreakResponse>, ApiError> {
    let time_zone = request.unwrap_or_default().user_timezone;
    Ok(axum::Json(service::streak(&state, &user, time_zone).await?.into()))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct PeriodQuery {
    /// `daily` (today), `weekly` (7 days), `monthly` (30 days) or `all` (the default).
    #[param(inline)]
    period: Option<Period>,
}

/// Returns averages and counts of a period.
#[utoipa::path(get, path = "/statistics", tag = "progress", params(PeriodQuery),
    responses((status = 200, body = Statistics), (status = 401), (status = 403), (status = 422)))]
async fn statistics(
    State(state): State<ProgressState>,
    VerifiedProfile(user): VerifiedProfile,
    Query(PeriodQuery { period }): Query<PeriodQuery>,
) -> Result<axum::Json<Statistics>, ApiError> {
    Ok(axum::Json(service::statistics(&state, &user, period.unwrap_or(Period::All)).await?.into()))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct DaysQuery {
    /// The number of newest days: 1 to 365, default 30; not together with dates.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 365)]
    days: Option<String>,
    /// `YYYY-MM-DD`; requires `end_date`; at most 366 days in total.
    #[param(value_type = Option<LocalDate>, inline)]
    start_date: Option<String>,
    /// `YYYY-MM-DD`.
    #[param(value_type = Option<LocalDate>, inline)]
    end_date: Option<String>,
}

impl DaysQuery {
    fn parse(&self) -> Result<Days, ApiError> {
        // Years have four digits: the databases support fewer years than the parser.
        let is_plain = |text: &str| text.len() == 10 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
        let date = |name: &str, text: &str| {
            let day = Some(text).filter(|text| is_plain(text)).and_then(|text| text.parse().ok());
            day.map(LocalDate)
                .ok_or_else(|| ApiError::validation(name, format!("{name} must be a date in the form YYYY-MM-DD")))
        };
        let (from, to) = match (&self.start_date, &self.end_date) {
            (None, None) => return Ok(Days::Newest(integer("days", self.days.as_deref(), 1, 365)?.unwrap_or(30))),
            (Some(from), Some(to)) => (date("start_date", from)?, date("end_date", to)?),
            (Some(_), None) => return Err(ApiError::validation("end_date", "end_date is required with start_date")),
            (None, Some(_)) => return Err(ApiError::validation("start_date", "start_date is required with end_date")),
        };
        if self.days.is_some() {
            return Err(ApiError::validation("days", "days can't be combined with start_date and end_date"));
        }
        if to < from || from.plus_days(MAX_DAYS - 1) < to {
            let message = format!("end_date must be between start_date and {} days after it", MAX_DAYS - 1);
            return Err(ApiError::validation("end_date", message));
        }
        Ok(Days::Between(from, to))
    }
}

/// Returns an entry for each local day.
#[utoipa::path(get, path = "/history", tag = "progress", params(DaysQuery),
    responses((status = 200, body = HistoryResponse), (status = 401), (status = 403), (status = 422)))]
async fn history(
    State(state): State<ProgressState>,
    VerifiedProfile(user): VerifiedProfile,
    Query(query): Query<DaysQuery>,
) -> Result<axum::Json<HistoryResponse>, ApiError> {
    Ok(axum::Json(service::history(&state, &user, query.parse()?).await?.into()))
}

/// Lists the levels of all topics, by name.
#[utoipa::path(get, path = "/skill-levels", tag = "progress",
    responses((status = 200, body = SkillList), (status = 401), (status = 403)))]
async fn skill_levels(
    State(state): State<ProgressState>,
    Verified(identity): Verified,
) -> Result<axum::Json<SkillList>, ApiError> {
    Ok(axum::Json(state.store.skill_levels(identity.user_id).await?.into()))
}

/// Lists the levels of all topics, at the path of the existing frontend.
#[utoipa::path(get, path = "/progress/skills", tag = "progress",
    responses((status = 200, body = SkillList), (status = 401), (status = 403)))]
async fn skills(state: State<ProgressState>, identity: Verified) -> Result<axum::Json<SkillList>, ApiError> {
    skill_levels(state, identity).await
}

/// Returns the level of one topic, and the progress towards the next level.
#[utoipa::path(post, path = "/calculate-skill-level", tag = "progress", request_body = TopicRequest,
    responses((status = 200, body = CalculatedLevel), (status = 401), (status = 403), (status = 422)))]
async fn calculate_skill_level(
    State(state): State<ProgressState>,
    Verified(identity): Verified,
    Json(request): Json<TopicRequest>,
) -> Result<axum::Json<CalculatedLevel>, ApiError> {
    Ok(axum::Json(service::level(&state, identity.user_id, request.topic).await?.into()))
}

/// Lists the students with the highest values; equal values share a rank. `offset` is at most 10000.
#[utoipa::path(get, path = "/leaderboard", tag = "progress", params(BoardQuery, PageParams),
    responses((status = 200, body = LeaderboardList), (status = 401), (status = 403), (status = 422)))]
async fn top(
    State(state): State<ProgressState>,
    _: Verified,
    Query(query): Query<BoardQuery>,
    Query(page): Query<PageParams>,
) -> Result<axum::Json<LeaderboardList>, ApiError> {
    let (board, request) = (query.board()?, page.parse(ENTRIES, List::Leaderboard)?);
    let found = state.store.leaderboard(&board, &request).await?;
    Ok(axum::Json(LeaderboardList::new(found, &request)))
}

/// Returns the student's place, with five neighbours on each side.
#[utoipa::path(get, path = "/leaderboard/me", tag = "progress", params(BoardQuery),
    responses((status = 200, body = AroundResponse), (status = 401), (status = 403), (status = 422)))]
async fn around(
    State(state): State<ProgressState>,
    Verified(identity): Verified,
    Query(query): Query<BoardQuery>,
) -> Result<axum::Json<AroundResponse>, ApiError> {
    let found = state.store.leaderboard_around(&query.board()?, identity.user_id, NEIGHBOURS).await?;
    Ok(axum::Json(found.into()))
}

/// Hides the student from all leaderboards, or shows them again.
#[utoipa::path(put, path = "/leaderboard/me", tag = "progress", request_body = OptOutRequest,
    responses((status = 200, body = OptOutResponse), (status = 401), (status = 403), (status = 422)))]
async fn opt_out(
    State(state): State<ProgressState>,
    Verified(identity): Verified,
    Json(request): Json<OptOutRequest>,
) -> Result<axum::Json<OptOutResponse>, ApiError> {
    state.store.set_leaderboard_opt_out(identity.user_id, request.opted_out).await?;
    state.leaderboards.notify_one();
    Ok(axum::Json(OptOutResponse { opted_out: request.opted_out }))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct FormatQuery {
    /// `json` (the default) or `csv`.
    #[serde(default)]
    #[param(inline)]
    format: Format,
}

/// Exports the whole history as a download.
#[utoipa::path(get, path = "/export", tag = "progress", params(FormatQuery),
    responses((status = 200, content((Export = "application/json"), (String = "text/csv"))), (status = 401), (status = 403), (status = 422)))]
async fn export(
    State(state): State<ProgressState>,
    Verified(identity): Verified,
    Query(FormatQuery { format }): Query<FormatQuery>,
) -> Result<Response, ApiError> {
    state.limits.check(Rule::Export, &Subject::User(identity.user_id)).await?;
    export::respond(&state, identity.user_id, format).await
}
