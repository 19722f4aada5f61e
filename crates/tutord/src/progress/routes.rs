//! `/api/progress`: HTTP in and out.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use tutord_store::LocalDate;
use tutord_store::model::{AchievementCategory, Period};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::export::{self, Export, Format};
use super::leaderboard::{self, BoardQuery};
use super::service::{self, Days};
use super::wire::{
    AchievementList, AroundResponse, BadgeList, CalculatedLevel, HistoryResponse, LeaderboardList, OptOutRequest,
    OptOutResponse, ProgressResponse, SkillList, Statistics, StreakRequest, StreakResponse, TopicRequest,
};
use crate::app::App;
use crate::auth::Verified;
use crate::error::ApiError;
use crate::http::budgets::Budget;
use crate::http::json::{Json, OptionalJson};
use crate::http::pagination::{PageParams, integer};
use crate::http::query::Query;
use crate::http::rate_limit::{Rule, Subject};

/// Statements per request on this route, authentication included.
pub const PROGRESS_BUDGET: u32 = 5;
/// Statements per request for achievements and badges, authentication included.
pub const ACHIEVEMENTS_BUDGET: u32 = 4;
/// Statements per request on this route, authentication included.
pub const STATISTICS_BUDGET: u32 = 3;
/// Statements per request on this route, authentication included.
pub const HISTORY_BUDGET: u32 = 3;
/// Statements per request on this route, authentication included.
pub const SKILLS_BUDGET: u32 = 2;
/// Statements per request for the level of one topic, authentication included.
pub const LEVEL_BUDGET: u32 = 2;
/// Statements per request for the streak, authentication included.
pub const STREAK_BUDGET: u32 = 3;
/// Statements per request that hides or shows a student on leaderboards, authentication included.
pub const OPT_OUT_BUDGET: u32 = 8;
/// Statements per request on this route, authentication included.
pub const LEADERBOARD_BUDGET: u32 = 5;
/// Statements per request for a student's neighbourhood on a leaderboard, authentication included.
pub const AROUND_BUDGET: u32 = 8;

/// The most days of a history.
const MAX_DAYS: i64 = 366;

/// What each route may issue.
pub const BUDGETS: &[Budget] = &[
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
    // Its beginning; the exercises are read while the answer is on its way.
    ("GET", "/export", PROGRESS_BUDGET),
];
/// What the route among those of users may issue.
pub const USERS_BUDGETS: &[Budget] = &[("GET", "/me/achievements", ACHIEVEMENTS_BUDGET)];

/// The routes of this feature.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(overview))
        .routes(routes!(achievements))
        .routes(routes!(badges))
        .routes(routes!(update_streak))
        .routes(routes!(statistics))
        .routes(routes!(history))
        .routes(routes!(skill_levels))
        .routes(routes!(calculate_skill_level))
        .routes(routes!(top))
        .routes(routes!(around, opt_out))
        .routes(routes!(export))
}

/// Paths of the existing frontend; see `http::aliases`.
pub(crate) fn aliases() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(skills)).routes(routes!(overview_with_slash))
}

/// `/api/users/me/achievements`.
pub(crate) fn own_achievements() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(me_achievements))
}

/// The sums of all time.
#[utoipa::path(get, path = "/", tag = "progress",
    responses((status = 200, body = ProgressResponse), (status = 401), (status = 403)))]
async fn overview(
    State(app): State<App>,
    Verified(identity): Verified,
) -> Result<axum::Json<ProgressResponse>, ApiError> {
    Ok(axum::Json(service::progress(&app, identity.user_id).await?))
}

/// The same sums: clients of the service before this one were sent on to the path with a slash.
#[utoipa::path(get, path = "/progress/", tag = "progress",
    responses((status = 200, body = ProgressResponse), (status = 401), (status = 403)))]
async fn overview_with_slash(state: State<App>, identity: Verified) -> Result<axum::Json<ProgressResponse>, ApiError> {
    overview(state, identity).await
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct AchievementQuery {
    /// Only achievements of this category.
    #[param(inline)]
    category: Option<AchievementCategory>,
    /// Only those that are unlocked.
    #[serde(default)]
    unlocked_only: bool,
}

/// Every achievement, and how far the student has come; hidden ones once they are unlocked.
#[utoipa::path(get, path = "/achievements", tag = "progress", params(AchievementQuery),
    responses((status = 200, body = AchievementList), (status = 401), (status = 403), (status = 422)))]
async fn achievements(
    State(app): State<App>,
    Verified(identity): Verified,
    Query(query): Query<AchievementQuery>,
) -> Result<axum::Json<AchievementList>, ApiError> {
    let found = service::achievements(&app, identity.user_id, query.category, query.unlocked_only).await?;
    Ok(axum::Json(found))
}

/// The same achievements, under their other path.
#[utoipa::path(get, path = "/me/achievements", tag = "users", params(AchievementQuery),
    responses((status = 200, body = AchievementList), (status = 401), (status = 403), (status = 422)))]
async fn me_achievements(
    state: State<App>,
    identity: Verified,
    query: Query<AchievementQuery>,
) -> Result<axum::Json<AchievementList>, ApiError> {
    achievements(state, identity, query).await
}

/// Achievements as badges, earned or not.
#[utoipa::path(get, path = "/badges", tag = "progress",
    responses((status = 200, body = BadgeList), (status = 401), (status = 403)))]
async fn badges(State(app): State<App>, Verified(identity): Verified) -> Result<axum::Json<BadgeList>, ApiError> {
    Ok(axum::Json(service::badges(&app, identity.user_id).await?))
}

/// The streak, by the student's completions.
#[utoipa::path(post, path = "/update-streak", tag = "progress", request_body = Option<StreakRequest>,
    responses((status = 200, body = StreakResponse), (status = 401), (status = 403), (status = 422)))]
async fn update_streak(
    State(app): State<App>,
    Verified(identity): Verified,
    OptionalJson(request): OptionalJson<StreakRequest>,
) -> Result<axum::Json<StreakResponse>, ApiError> {
    let time_zone = request.unwrap_or_default().user_timezone;
    Ok(axum::Json(service::streak(&app, identity.user_id, time_zone).await?))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct PeriodQuery {
    /// `daily` (today), `weekly` (7 days), `monthly` (30 days) or `all` (the default).
    #[param(inline)]
    period: Option<Period>,
}

/// Averages and counts of a period.
#[utoipa::path(get, path = "/statistics", tag = "progress", params(PeriodQuery),
    responses((status = 200, body = Statistics), (status = 401), (status = 403), (status = 422)))]
async fn statistics(
    State(app): State<App>,
    Verified(identity): Verified,
    Query(PeriodQuery { period }): Query<PeriodQuery>,
) -> Result<axum::Json<Statistics>, ApiError> {
    Ok(axum::Json(service::statistics(&app, identity.user_id, period.unwrap_or(Period::All)).await?))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct DaysQuery {
    /// The newest days: 1 to 365, 30 without it; not together with dates.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 365)]
    days: Option<String>,
    /// `YYYY-MM-DD`; needs `end_date`, at most 366 days later.
    #[param(value_type = Option<LocalDate>, inline)]
    start_date: Option<String>,
    /// `YYYY-MM-DD`.
    #[param(value_type = Option<LocalDate>, inline)]
    end_date: Option<String>,
}

impl DaysQuery {
    fn parse(&self) -> Result<Days, ApiError> {
        // Four digits for the year: databases know fewer of the years before Christ than the parser does.
        let is_plain = |text: &str| text.len() == 10 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
        let date = |name: &str, text: &str| {
            let day = Some(text).filter(|text| is_plain(text)).and_then(|text| text.parse().ok());
            day.map(LocalDate).ok_or_else(|| ApiError::validation(name, format!("{name} must be a day, YYYY-MM-DD")))
        };
        let (from, to) = match (&self.start_date, &self.end_date) {
            (None, None) => return Ok(Days::Newest(integer("days", self.days.as_deref(), 1, 365)?.unwrap_or(30))),
            (Some(from), Some(to)) => (date("start_date", from)?, date("end_date", to)?),
            (Some(_), None) => return Err(ApiError::validation("end_date", "end_date is required with start_date")),
            (None, Some(_)) => return Err(ApiError::validation("start_date", "start_date is required with end_date")),
        };
        if self.days.is_some() {
            return Err(ApiError::validation("days", "days and dates exclude each other"));
        }
        if to < from || from.plus_days(MAX_DAYS - 1) < to {
            let message = format!("end_date must be start_date or up to {} days later", MAX_DAYS - 1);
            return Err(ApiError::validation("end_date", message));
        }
        Ok(Days::Between(from, to))
    }
}

/// A line for each local day.
#[utoipa::path(get, path = "/history", tag = "progress", params(DaysQuery),
    responses((status = 200, body = HistoryResponse), (status = 401), (status = 403), (status = 422)))]
async fn history(
    State(app): State<App>,
    Verified(identity): Verified,
    Query(query): Query<DaysQuery>,
) -> Result<axum::Json<HistoryResponse>, ApiError> {
    Ok(axum::Json(service::history(&app, identity.user_id, query.parse()?).await?))
}

/// The level of each topic, by name.
#[utoipa::path(get, path = "/skill-levels", tag = "progress",
    responses((status = 200, body = SkillList), (status = 401), (status = 403)))]
async fn skill_levels(State(app): State<App>, Verified(identity): Verified) -> Result<axum::Json<SkillList>, ApiError> {
    Ok(axum::Json(SkillList { skill_levels: service::skill_levels(&app, identity.user_id).await? }))
}

/// The same levels, under the path of the existing frontend.
#[utoipa::path(get, path = "/progress/skills", tag = "progress",
    responses((status = 200, body = SkillList), (status = 401), (status = 403)))]
async fn skills(state: State<App>, identity: Verified) -> Result<axum::Json<SkillList>, ApiError> {
    skill_levels(state, identity).await
}

/// The level of one topic, and how far the next is.
#[utoipa::path(post, path = "/calculate-skill-level", tag = "progress", request_body = TopicRequest,
    responses((status = 200, body = CalculatedLevel), (status = 401), (status = 403), (status = 422)))]
async fn calculate_skill_level(
    State(app): State<App>,
    Verified(identity): Verified,
    Json(request): Json<TopicRequest>,
) -> Result<axum::Json<CalculatedLevel>, ApiError> {
    Ok(axum::Json(service::level(&app, identity.user_id, request.topic).await?))
}

/// The students with the highest values; equal values share a rank. `offset` is at most 10000.
#[utoipa::path(get, path = "/leaderboard", tag = "progress", params(BoardQuery, PageParams),
    responses((status = 200, body = LeaderboardList), (status = 401), (status = 403), (status = 422)))]
async fn top(
    State(app): State<App>,
    _: Verified,
    Query(query): Query<BoardQuery>,
    Query(page): Query<PageParams>,
) -> Result<axum::Json<LeaderboardList>, ApiError> {
    Ok(axum::Json(leaderboard::top(&app, query, &page).await?))
}

/// The student's own place, with five neighbours on each side.
#[utoipa::path(get, path = "/leaderboard/me", tag = "progress", params(BoardQuery),
    responses((status = 200, body = AroundResponse), (status = 401), (status = 403), (status = 422)))]
async fn around(
    State(app): State<App>,
    Verified(identity): Verified,
    Query(query): Query<BoardQuery>,
) -> Result<axum::Json<AroundResponse>, ApiError> {
    Ok(axum::Json(leaderboard::around(&app, identity.user_id, query).await?))
}

/// Hides the student from all leaderboards, or shows them again.
#[utoipa::path(put, path = "/leaderboard/me", tag = "progress", request_body = OptOutRequest,
    responses((status = 200, body = OptOutResponse), (status = 401), (status = 403), (status = 422)))]
async fn opt_out(
    State(app): State<App>,
    Verified(identity): Verified,
    Json(request): Json<OptOutRequest>,
) -> Result<axum::Json<OptOutResponse>, ApiError> {
    app.store.set_leaderboard_opt_out(identity.user_id, request.opted_out).await?;
    app.leaderboards.notify_one();
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

/// The whole history as a download.
#[utoipa::path(get, path = "/export", tag = "progress", params(FormatQuery),
    responses((status = 200, content((Export = "application/json"), (String = "text/csv"))), (status = 401), (status = 403), (status = 422)))]
async fn export(
    State(app): State<App>,
    Verified(identity): Verified,
    Query(FormatQuery { format }): Query<FormatQuery>,
) -> Result<Response, ApiError> {
    app.limits.check(Rule::Export, &Subject::User(identity.user_id)).await?;
    export::respond(&app, identity.user_id, format).await
}
