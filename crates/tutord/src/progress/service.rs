//! The rules of a student's progress.

use tutord_core::model::progress::{Activity, ActivityHistory, ProgressOverview, TopicSkill, average_grade};
use tutord_core::model::{Achievement, AchievementCategory, Period, SkillLevel, User};
use tutord_core::rules::streak::current_streak;
use tutord_core::rules::{self, level};
use tutord_core::time::zone::local_day;
use tutord_core::{LocalDate, Timestamp};

use super::state::ProgressState;
use crate::http::error::ApiError;

/// The number of days of the trend in statistics of all time.
const TREND_DAYS: i64 = 30;

/// Returns a student's progress in each requirement.
struct RequirementProgress {
    all: Activity,
    best_level: i32,
}

impl RequirementProgress {
    fn new(user_id: i64, found: &ProgressOverview) -> Self {
        let best_level = found.skills.iter().map(|skill| level::rank(skill.level)).max().unwrap_or(0);
        let all = found.all.clone().unwrap_or_else(|| Activity::sum(user_id, &[]));
        Self { all, best_level }
    }

    fn of(&self, achievement: &Achievement) -> i32 {
        rules::reached(achievement.requirement, &self.all, self.best_level).min(achievement.requirement_value)
    }
}

/// An achievement, with the student's progress towards it.
pub(super) struct AchievementProgress {
    pub(super) achievement: Achievement,
    pub(super) unlocked_at: Option<Timestamp>,
    /// At most the required value.
    pub(super) progress: i32,
}

/// Returns the achievements of a category, or all. Hidden ones appear once they are unlocked.
pub(super) async fn achievements(
    state: &ProgressState,
    user_id: i64,
    category: Option<AchievementCategory>,
) -> Result<Vec<AchievementProgress>, ApiError> {
    let found = state.store.progress(user_id).await?;
    let reached = RequirementProgress::new(user_id, &found);
    let visible = found.achievements.into_iter().filter(|(achievement, unlocked_at)| {
        (!achievement.hidden || unlocked_at.is_some()) && category.is_none_or(|wanted| achievement.category == wanted)
    });
    Ok(visible
        .map(|(achievement, unlocked_at)| {
            // An unlocked achievement stays unlocked, even if a recomputation of the sums falls below its target.
            let is_unlocked = unlocked_at.is_some();
            let progress = if is_unlocked { achievement.requirement_value } else { reached.of(&achievement) };
            AchievementProgress { achievement, unlocked_at, progress }
        })
        .collect())
}

/// A student's streak.
pub(super) struct StreakStatus {
    /// The current streak: 0 after a whole local day without a completion.
    pub(super) current: i32,
    /// The longest streak.
    pub(super) longest: i32,
    /// The streak after the newest completion.
    pub(super) newest: i32,
}

/// Returns the streak. A client's time zone only selects the current local day. Streak achievements are unlocked by the
/// completion that reaches them, never here.
pub(super) async fn streak(
    state: &ProgressState,
    user: &User,
    time_zone: Option<String>,
) -> Result<StreakStatus, ApiError> {
    let newest = state.store.newest_activity(user.id).await?;
    let now = Timestamp::now();
    let today = local_day(now, time_zone.as_deref().unwrap_or(&user.timezone));
    let run = newest.as_ref().map_or(0, |day| day.streak);
    let current = current_streak(newest.map(|day| day.starts_on), user.last_completed_at, run, now, today);
    Ok(StreakStatus { current, longest: user.longest_streak, newest: run })
}

/// Returns the day that a completion counts for now: the local day, or the newest day with a completion, which can be
/// ahead after a journey to the west.
fn today(user: &User) -> LocalDate {
    let local = local_day(Timestamp::now(), &user.timezone);
    user.last_exercise_date.map_or(local, |last| last.max(local))
}

/// The sums of a period.
pub(super) struct PeriodSums {
    pub(super) period: Period,
    pub(super) sums: Activity,
    /// The days with a completion in the period; for all time, in the last 30 days.
    pub(super) trend: Vec<Activity>,
}

/// Returns the sums of today, of seven days, of thirty days, or of all time.
pub(super) async fn statistics(state: &ProgressState, user: &User, period: Period) -> Result<PeriodSums, ApiError> {
    let today = today(user);
    let days = match period {
        Period::Daily => 1,
        Period::Weekly => 7,
        Period::Monthly | Period::All => TREND_DAYS,
    };
    let ActivityHistory { all, days: trend } = state.store.activity(user.id, today.plus_days(1 - days), today).await?;
    let sums = match period {
        Period::All => all.unwrap_or_else(|| Activity::sum(user.id, &[])),
        Period::Daily | Period::Weekly | Period::Monthly => Activity::sum(user.id, &trend),
    };
    Ok(PeriodSums { period, sums, trend })
}

/// The days of a requested history.
pub(super) enum Days {
    /// The given number of newest days, including today.
    Newest(i64),
    /// From the first to the second day, inclusive.
    Between(LocalDate, LocalDate),
}

/// The days of a history, with or without a completion.
pub(super) struct History {
    pub(super) from: LocalDate,
    pub(super) to: LocalDate,
    pub(super) days: Vec<(LocalDate, Option<Activity>)>,
}

/// Returns an entry for each day, with or without a completion.
pub(super) async fn history(state: &ProgressState, user: &User, days: Days) -> Result<History, ApiError> {
    let (from, to) = match days {
        Days::Between(from, to) => (from, to),
        Days::Newest(count) => {
            let today = today(user);
            (today.plus_days(1 - count), today)
        }
    };
    let mut found = state.store.activity(user.id, from, to).await?.days.into_iter().peekable();
    let mut days = Vec::new();
    let mut day = from;
    loop {
        days.push((day, found.next_if(|activity| activity.starts_on == day)));
        // `while day <= to` would not end at the last day of the calendar.
        if day >= to {
            break;
        }
        day = day.plus_days(1);
    }
    Ok(History { from, to, days })
}

/// A student's level in a topic.
pub(super) struct TopicLevel {
    pub(super) topic: String,
    /// The stored sums; `None` before the first completion.
    pub(super) skill: Option<TopicSkill>,
    pub(super) level: SkillLevel,
    /// The next level, and the progress towards it from 0 to 100; `None` for experts.
    pub(super) next: Option<(SkillLevel, f64)>,
}

/// Returns the level of a topic. Each completion stores the level, so a recalculation returns the stored value.
pub(super) async fn level(state: &ProgressState, user_id: i64, topic: String) -> Result<TopicLevel, ApiError> {
    let skill = state.store.skill_level(user_id, &topic).await?;
    let (count, average) = skill
        .as_ref()
        .map_or((0, None), |skill| (skill.exercises_completed, average_grade(skill.grade_sum, skill.graded_count)));
    let level = skill.as_ref().map_or(SkillLevel::Beginner, |skill| {
        level::of(skill.exercises_completed, skill.grade_sum, skill.graded_count)
    });
    Ok(TopicLevel { topic, next: level::next(level, count, average), level, skill })
}
