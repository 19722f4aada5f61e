//! The views of a student's sums.

use std::collections::BTreeMap;

use tutord_core::model::progress::{Activity, ActivityHistory, ProgressOverview, TopicSkill, average_grade};
use tutord_core::model::{Achievement, AchievementCategory, Period, User};
use tutord_core::rules::streak::{current_streak, local_day};
use tutord_core::rules::{self, level};
use tutord_core::{LocalDate, Timestamp};

use super::dto::{
    AchievementItem, AchievementList, Badge, BadgeList, CalculatedLevel, HistoryDay, HistoryResponse, ProgressResponse,
    SkillItem, Statistics, StreakResponse, TrendDay, UnlockedItem,
};
use super::state::ProgressState;
use crate::auth::profile;
use crate::http::error::ApiError;
use crate::users;

/// The number of days of the trend in statistics of all time.
const TREND_DAYS: i64 = 30;

pub(super) async fn progress(state: &ProgressState, user_id: i64) -> Result<ProgressResponse, ApiError> {
    let user = profile(state.store.as_ref(), user_id).await?;
    let found = state.store.progress(user_id).await?;
    let all = found.all.as_ref();
    Ok(ProgressResponse {
        user_id,
        exercises_completed: user.exercises_completed,
        current_streak: users::current_streak(&user),
        longest_streak: user.longest_streak,
        total_time_spent_seconds: all.map_or(0, |all| all.time_spent_seconds),
        average_grade: all.and_then(|all| average_grade(all.grade_sum, all.graded_count)),
        total_points: all.map_or(0, |all| all.points),
        achievements: found
            .achievements
            .into_iter()
            .filter_map(|(achievement, unlocked_at)| {
                let Achievement { slug, title, points, .. } = achievement;
                Some(UnlockedItem { slug, title, points, unlocked_at: unlocked_at? })
            })
            .collect(),
        skill_levels: found.skills.into_iter().map(|skill| (skill.topic, skill.level)).collect(),
    })
}

/// Returns a student's progress in each requirement.
struct Reached {
    all: Activity,
    best_level: i32,
}

impl Reached {
    fn new(user_id: i64, found: &ProgressOverview) -> Self {
        let best_level = found.skills.iter().map(|skill| level::rank(skill.level)).max().unwrap_or(0);
        let all = found.all.clone().unwrap_or_else(|| Activity::sum(user_id, &[]));
        Self { all, best_level }
    }

    fn of(&self, achievement: &Achievement) -> i32 {
        rules::reached(achievement.requirement, &self.all, self.best_level).min(achievement.requirement_value)
    }
}

pub(super) async fn achievements(
    state: &ProgressState,
    user_id: i64,
    category: Option<AchievementCategory>,
    unlocked_only: bool,
) -> Result<AchievementList, ApiError> {
    let found = state.store.progress(user_id).await?;
    let reached = Reached::new(user_id, &found);
    let of_category: Vec<_> = found
        .achievements
        .into_iter()
        .filter(|(achievement, unlocked_at)| {
            (!achievement.hidden || unlocked_at.is_some())
                && category.is_none_or(|wanted| achievement.category == wanted)
        })
        .collect();
    let unlocked = || of_category.iter().filter(|(_, unlocked_at)| unlocked_at.is_some());
    let total_points = unlocked().map(|(achievement, _)| i64::from(achievement.points)).sum();
    let (unlocked_count, total_count) = (unlocked().count(), of_category.len());
    let achievements = of_category
        .into_iter()
        .filter(|(_, unlocked_at)| !unlocked_only || unlocked_at.is_some())
        .map(|(achievement, unlocked_at)| {
            let target = achievement.requirement_value;
            // Unlocked stays unlocked, whatever a rebuilt history says.
            let progress = if unlocked_at.is_some() { target } else { reached.of(&achievement) };
            AchievementItem::new(achievement, unlocked_at, progress)
        })
        .collect();
    Ok(AchievementList { achievements, total_points, unlocked_count, total_count })
}

pub(super) async fn badges(state: &ProgressState, user_id: i64) -> Result<BadgeList, ApiError> {
    let found = state.store.progress(user_id).await?;
    let badges: Vec<Badge> = found
        .achievements
        .into_iter()
        .filter(|(achievement, unlocked_at)| !achievement.hidden || unlocked_at.is_some())
        .map(|(achievement, unlocked_at)| Badge::new(achievement, unlocked_at))
        .collect();
    let earned = || badges.iter().filter(|badge| badge.earned);
    Ok(BadgeList {
        total_earned: earned().count(),
        total_available: badges.len(),
        points_earned: earned().map(|badge| i64::from(badge.points)).sum(),
        badges,
    })
}

/// Returns the streak. A client's time zone only selects the current local day. Streak achievements are unlocked by the
/// completion that reaches them, never here.
pub(super) async fn streak(
    state: &ProgressState,
    user_id: i64,
    time_zone: Option<String>,
) -> Result<StreakResponse, ApiError> {
    let user = profile(state.store.as_ref(), user_id).await?;
    let newest = state.store.newest_activity(user_id).await?;
    let now = Timestamp::now();
    let today = local_day(now, time_zone.as_deref().unwrap_or(&user.timezone));
    let run = newest.as_ref().map_or(0, |day| day.streak);
    let current = current_streak(newest.map(|day| day.starts_on), user.last_completed_at, run, now, today);
    Ok(StreakResponse {
        current_streak: current,
        longest_streak: user.longest_streak,
        streak_maintained: current > 0,
        streak_broken: run > 0 && current == 0,
        previous_streak: run,
        new_record: current > 0 && current == user.longest_streak,
        achievements_unlocked: [],
    })
}

/// Returns the day that a completion counts for now: the local day, or the newest day with a completion, which can be
/// ahead after a journey to the west.
fn today(user: &User) -> LocalDate {
    let local = local_day(Timestamp::now(), &user.timezone);
    user.last_exercise_date.map_or(local, |last| last.max(local))
}

/// Returns the sums of today, of seven days, of thirty days, or of all time.
pub(super) async fn statistics(state: &ProgressState, user_id: i64, period: Period) -> Result<Statistics, ApiError> {
    let today = today(profile(state.store.as_ref(), user_id).await?.as_ref());
    let days = match period {
        Period::Daily => 1,
        Period::Weekly => 7,
        Period::Monthly | Period::All => TREND_DAYS,
    };
    let ActivityHistory { all, days: trend } = state.store.activity(user_id, today.plus_days(1 - days), today).await?;
    let sums = match period {
        Period::All => all.unwrap_or_else(|| Activity::sum(user_id, &[])),
        Period::Daily | Period::Weekly | Period::Monthly => Activity::sum(user_id, &trend),
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds, far below 2^52")]
    let average_time =
        (sums.exercises_completed > 0).then(|| sums.time_spent_seconds as f64 / f64::from(sums.exercises_completed));
    Ok(Statistics {
        average_grade: average_grade(sums.grade_sum, sums.graded_count),
        average_time_per_exercise: average_time,
        total_hints_requested: sums.hints_used,
        exercises_by_difficulty: BTreeMap::from([("easy", sums.easy), ("medium", sums.medium), ("hard", sums.hard)]),
        exercises_by_type: BTreeMap::from([
            ("algorithm", sums.algorithm),
            ("data_structure", sums.data_structure),
            ("debugging", sums.debugging),
            ("practical", sums.practical),
        ]),
        recent_performance_trend: trend
            .iter()
            .map(|day| TrendDay {
                date: day.starts_on,
                average_grade: average_grade(day.grade_sum, day.graded_count),
                exercises_completed: day.exercises_completed,
            })
            .collect(),
        period,
    })
}

/// The days of a requested history.
pub(super) enum Days {
    /// The given number of newest days, including today.
    Newest(i64),
    /// From the first to the second day, inclusive.
    Between(LocalDate, LocalDate),
}

/// Returns an entry for each day, with or without a completion.
pub(super) async fn history(state: &ProgressState, user_id: i64, days: Days) -> Result<HistoryResponse, ApiError> {
    let (from, to) = match days {
        Days::Between(from, to) => (from, to),
        Days::Newest(count) => {
            let today = today(profile(state.store.as_ref(), user_id).await?.as_ref());
            (today.plus_days(1 - count), today)
        }
    };
    let mut found = state.store.activity(user_id, from, to).await?.days.into_iter().peekable();
    let mut history = Vec::new();
    let mut day = from;
    loop {
        history.push(HistoryDay::new(day, found.next_if(|activity| activity.starts_on == day).as_ref()));
        // Not `while day <= to`: nothing is later than the calendar's last day.
        if day >= to {
            break;
        }
        day = day.plus_days(1);
    }
    Ok(HistoryResponse { total_days: history.len(), history, start_date: from, end_date: to })
}

pub(super) async fn skill_levels(state: &ProgressState, user_id: i64) -> Result<Vec<SkillItem>, ApiError> {
    Ok(state.store.skill_levels(user_id).await?.into_iter().map(SkillItem::from).collect())
}

/// Returns the level of a topic. Each completion stores the level, so a recalculation returns the stored value.
pub(super) async fn level(state: &ProgressState, user_id: i64, topic: String) -> Result<CalculatedLevel, ApiError> {
    let skill = state.store.skill_level(user_id, &topic).await?;
    let (count, average) = skill
        .as_ref()
        .map_or((0, None), |skill| (skill.exercises_completed, average_grade(skill.grade_sum, skill.graded_count)));
    let current = skill.as_ref().map_or(tutord_core::model::SkillLevel::Beginner, |skill: &TopicSkill| {
        level::of(skill.exercises_completed, skill.grade_sum, skill.graded_count)
    });
    let next = level::next(current, count, average);
    Ok(CalculatedLevel {
        topic,
        current_level: current,
        previous_level: skill.as_ref().and_then(|skill| skill.previous_level),
        level_changed: skill.is_some_and(|skill| skill.level != current),
        exercises_completed: count,
        average_grade: average,
        next_level: next.map(|(level, _)| level),
        progress_to_next: next.map_or(100.0, |(_, percentage)| percentage),
    })
}
