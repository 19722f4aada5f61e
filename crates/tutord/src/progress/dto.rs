//! The JSON of the progress routes.

use std::collections::BTreeMap;

use garde::Validate;
use serde::{Deserialize, Serialize};
use tutord_core::model::progress::{
    Activity, LeaderboardEntry, Neighbourhood, ProgressOverview, TopicSkill, average_grade,
};
use tutord_core::model::{Achievement, AchievementCategory, Period, Rarity, SkillLevel, User};
use tutord_core::{LocalDate, Page, PageRequest, Timestamp};
use utoipa::ToSchema;

use super::service::{AchievementProgress, History, PeriodSums, StreakStatus, TopicLevel};
use crate::http::json::trimmed;
use crate::http::pagination::PageInfo;
use crate::http::validation::time_zone;
use crate::users::current_streak;

#[derive(Serialize, ToSchema)]
pub(super) struct UnlockedItem {
    pub(super) slug: String,
    pub(super) title: String,
    pub(super) points: i32,
    pub(super) unlocked_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
pub(super) struct ProgressResponse {
    pub(super) user_id: i64,
    pub(super) exercises_completed: i32,
    pub(super) current_streak: i32,
    pub(super) longest_streak: i32,
    pub(super) total_time_spent_seconds: i64,
    /// 0 to 100; null without a grade.
    pub(super) average_grade: Option<f64>,
    pub(super) total_points: i64,
    pub(super) achievements: Vec<UnlockedItem>,
    /// The level of each topic.
    pub(super) skill_levels: BTreeMap<String, SkillLevel>,
}

impl ProgressResponse {
    pub(super) fn new(user: &User, found: ProgressOverview) -> Self {
        let all = found.all.as_ref();
        Self {
            user_id: user.id,
            exercises_completed: user.exercises_completed,
            current_streak: current_streak(user),
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
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct AchievementItem {
    id: i64,
    name: String,
    slug: String,
    title: String,
    description: String,
    category: AchievementCategory,
    requirement_value: i32,
    requirement_description: String,
    icon_url: Option<String>,
    badge_color: Option<String>,
    points: i32,
    unlocked: bool,
    unlocked_at: Option<Timestamp>,
    progress: i32,
    target: i32,
    /// 0 to 100.
    progress_percentage: f64,
}

impl From<AchievementProgress> for AchievementItem {
    fn from(AchievementProgress { achievement, unlocked_at, progress }: AchievementProgress) -> Self {
        let target = achievement.requirement_value;
        Self {
            id: achievement.id,
            name: achievement.name,
            slug: achievement.slug,
            title: achievement.title,
            description: achievement.description,
            category: achievement.category,
            requirement_value: target,
            requirement_description: achievement.requirement_description,
            icon_url: achievement.icon_url,
            badge_color: achievement.badge_color,
            points: achievement.points,
            unlocked: unlocked_at.is_some(),
            unlocked_at,
            progress,
            target,
            progress_percentage: 100.0 * f64::from(progress) / f64::from(target.max(1)),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct AchievementList {
    pub(super) achievements: Vec<AchievementItem>,
    /// The points of unlocked achievements.
    pub(super) total_points: i64,
    pub(super) unlocked_count: usize,
    pub(super) total_count: usize,
}

impl AchievementList {
    /// The counts include the achievements that are not unlocked, even if only unlocked ones are listed.
    pub(super) fn new(found: Vec<AchievementProgress>, unlocked_only: bool) -> Self {
        let unlocked = || found.iter().filter(|item| item.unlocked_at.is_some());
        Self {
            total_points: unlocked().map(|item| i64::from(item.achievement.points)).sum(),
            unlocked_count: unlocked().count(),
            total_count: found.len(),
            achievements: found
                .into_iter()
                .filter(|item| !unlocked_only || item.unlocked_at.is_some())
                .map(AchievementItem::from)
                .collect(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct Badge {
    id: i64,
    /// The slug.
    r#type: String,
    name: String,
    description: String,
    icon_url: Option<String>,
    icon: Option<String>,
    pub(super) earned: bool,
    earned_at: Option<Timestamp>,
    category: AchievementCategory,
    pub(super) points: i32,
    rarity: Rarity,
}

impl From<AchievementProgress> for Badge {
    fn from(AchievementProgress { achievement, unlocked_at: earned_at, .. }: AchievementProgress) -> Self {
        Self {
            id: achievement.id,
            r#type: achievement.slug,
            name: achievement.name,
            description: achievement.description,
            icon_url: achievement.icon_url,
            icon: achievement.icon,
            earned: earned_at.is_some(),
            earned_at,
            category: achievement.category,
            points: achievement.points,
            rarity: achievement.rarity,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct BadgeList {
    pub(super) badges: Vec<Badge>,
    pub(super) total_earned: usize,
    pub(super) total_available: usize,
    pub(super) points_earned: i64,
}

impl From<Vec<AchievementProgress>> for BadgeList {
    fn from(found: Vec<AchievementProgress>) -> Self {
        let badges: Vec<Badge> = found.into_iter().map(Badge::from).collect();
        let earned = || badges.iter().filter(|badge| badge.earned);
        Self {
            total_earned: earned().count(),
            total_available: badges.len(),
            points_earned: earned().map(|badge| i64::from(badge.points)).sum(),
            badges,
        }
    }
}

#[derive(Default, Deserialize, Validate, ToSchema)]
pub(super) struct StreakRequest {
    /// IANA name, such as `Europe/Berlin`; default: the time zone of the profile.
    #[schema(max_length = 64)]
    #[garde(custom(time_zone))]
    pub(super) user_timezone: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct StreakResponse {
    pub(super) current_streak: i32,
    pub(super) longest_streak: i32,
    pub(super) streak_maintained: bool,
    pub(super) streak_broken: bool,
    /// The streak after the newest completion.
    pub(super) previous_streak: i32,
    /// Set if no earlier streak was longer.
    pub(super) new_record: bool,
    #[schema(value_type = Vec<String>)]
    pub(super) achievements_unlocked: [String; 0],
}

impl From<StreakStatus> for StreakResponse {
    /// The completion that reaches a streak unlocks its achievements, so this response never does.
    fn from(StreakStatus { current, longest, newest }: StreakStatus) -> Self {
        Self {
            current_streak: current,
            longest_streak: longest,
            streak_maintained: current > 0,
            streak_broken: newest > 0 && current == 0,
            previous_streak: newest,
            new_record: current > 0 && current == longest,
            achievements_unlocked: [],
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct TrendDay {
    pub(super) date: LocalDate,
    pub(super) average_grade: Option<f64>,
    pub(super) exercises_completed: i32,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Statistics {
    /// 0 to 100; null without a grade.
    pub(super) average_grade: Option<f64>,
    /// Seconds; null without a completion.
    pub(super) average_time_per_exercise: Option<f64>,
    /// The hints taken for completed exercises.
    pub(super) total_hints_requested: i32,
    #[schema(value_type = BTreeMap<String, i32>)]
    pub(super) exercises_by_difficulty: BTreeMap<&'static str, i32>,
    #[schema(value_type = BTreeMap<String, i32>)]
    pub(super) exercises_by_type: BTreeMap<&'static str, i32>,
    /// Days with a completion in the period; for all time, in the last 30 days.
    pub(super) recent_performance_trend: Vec<TrendDay>,
    pub(super) period: Period,
}

impl From<PeriodSums> for Statistics {
    fn from(PeriodSums { period, sums, trend }: PeriodSums) -> Self {
        let completed = sums.exercises_completed;
        #[expect(clippy::cast_precision_loss, reason = "seconds, far below 2^52")]
        let average_time = (completed > 0).then(|| sums.time_spent_seconds as f64 / f64::from(completed));
        Self {
            average_grade: average_grade(sums.grade_sum, sums.graded_count),
            average_time_per_exercise: average_time,
            total_hints_requested: sums.hints_used,
            exercises_by_difficulty: BTreeMap::from([
                ("easy", sums.easy),
                ("medium", sums.medium),
                ("hard", sums.hard),
            ]),
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
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct HistoryDay {
    date: LocalDate,
    exercises_completed: i32,
    time_spent_seconds: i64,
    average_grade: Option<f64>,
    streak: i32,
    achievements_unlocked: i32,
}

impl HistoryDay {
    fn new(date: LocalDate, activity: Option<&Activity>) -> Self {
        Self {
            date,
            exercises_completed: activity.map_or(0, |day| day.exercises_completed),
            time_spent_seconds: activity.map_or(0, |day| day.time_spent_seconds),
            average_grade: activity.and_then(|day| average_grade(day.grade_sum, day.graded_count)),
            streak: activity.map_or(0, |day| day.streak),
            achievements_unlocked: activity.map_or(0, |day| day.achievements_unlocked),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct HistoryResponse {
    pub(super) history: Vec<HistoryDay>,
    pub(super) start_date: LocalDate,
    pub(super) end_date: LocalDate,
    pub(super) total_days: usize,
}

impl From<History> for HistoryResponse {
    fn from(History { from, to, days }: History) -> Self {
        Self {
            total_days: days.len(),
            history: days.iter().map(|(day, activity)| HistoryDay::new(*day, activity.as_ref())).collect(),
            start_date: from,
            end_date: to,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct SkillItem {
    topic: String,
    level: SkillLevel,
    exercises_completed: i32,
    average_grade: Option<f64>,
    total_time_spent_seconds: i64,
    level_updated_at: Timestamp,
    previous_level: Option<SkillLevel>,
}

impl From<TopicSkill> for SkillItem {
    fn from(skill: TopicSkill) -> Self {
        Self {
            average_grade: average_grade(skill.grade_sum, skill.graded_count),
            topic: skill.topic,
            level: skill.level,
            exercises_completed: skill.exercises_completed,
            total_time_spent_seconds: skill.time_spent_seconds,
            level_updated_at: skill.level_updated_at,
            previous_level: skill.previous_level,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct SkillList {
    pub(super) skill_levels: Vec<SkillItem>,
}

impl From<Vec<TopicSkill>> for SkillList {
    fn from(skills: Vec<TopicSkill>) -> Self {
        Self { skill_levels: skills.into_iter().map(SkillItem::from).collect() }
    }
}

#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct TopicRequest {
    /// 1 to 100 characters.
    #[serde(deserialize_with = "trimmed")]
    #[schema(min_length = 1, max_length = 100)]
    #[garde(length(chars, min = 1, max = 100))]
    pub(super) topic: String,
}

#[derive(Serialize, ToSchema)]
pub(super) struct CalculatedLevel {
    pub(super) topic: String,
    pub(super) current_level: SkillLevel,
    pub(super) previous_level: Option<SkillLevel>,
    pub(super) level_changed: bool,
    pub(super) exercises_completed: i32,
    pub(super) average_grade: Option<f64>,
    /// Null for experts.
    pub(super) next_level: Option<SkillLevel>,
    /// 0 to 100.
    pub(super) progress_to_next: f64,
}

impl From<TopicLevel> for CalculatedLevel {
    fn from(TopicLevel { topic, skill, level, next }: TopicLevel) -> Self {
        let sums = skill.as_ref();
        Self {
            topic,
            current_level: level,
            previous_level: sums.and_then(|skill| skill.previous_level),
            level_changed: sums.is_some_and(|skill| skill.level != level),
            exercises_completed: sums.map_or(0, |skill| skill.exercises_completed),
            average_grade: sums.and_then(|skill| average_grade(skill.grade_sum, skill.graded_count)),
            next_level: next.map(|(level, _)| level),
            progress_to_next: next.map_or(100.0, |(_, percentage)| percentage),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct EntryItem {
    rank: i64,
    user_id: i64,
    display_name: String,
    avatar_url: Option<String>,
    value: i64,
}

impl From<LeaderboardEntry> for EntryItem {
    fn from(entry: LeaderboardEntry) -> Self {
        Self {
            rank: entry.rank,
            user_id: entry.user_id,
            display_name: entry.display_name,
            avatar_url: entry.avatar_url,
            value: entry.value,
        }
    }
}

fn items(entries: Vec<LeaderboardEntry>) -> Vec<EntryItem> {
    entries.into_iter().map(EntryItem::from).collect()
}

#[derive(Serialize, ToSchema)]
pub(super) struct LeaderboardList {
    entries: Vec<EntryItem>,
    #[serde(flatten)]
    page: PageInfo,
}

impl LeaderboardList {
    pub(super) fn new(page: Page<LeaderboardEntry>, request: &PageRequest) -> Self {
        Self { page: PageInfo::new(&page, request), entries: items(page.items) }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct AroundResponse {
    /// Null before the first completion of the period, and after opting out.
    entry: Option<EntryItem>,
    /// Up to five places before the student's, in the order of the leaderboard.
    above: Vec<EntryItem>,
    /// Up to five places after the student's.
    below: Vec<EntryItem>,
    total: i64,
    opted_out: bool,
}

impl From<Neighbourhood> for AroundResponse {
    fn from(found: Neighbourhood) -> Self {
        Self {
            entry: found.own.map(EntryItem::from),
            above: items(found.before),
            below: items(found.after),
            total: found.total,
            opted_out: found.opted_out,
        }
    }
}

#[derive(Deserialize, Validate, ToSchema)]
pub(super) struct OptOutRequest {
    /// Hides the student from all leaderboards.
    #[garde(skip)]
    pub(super) opted_out: bool,
}

#[derive(Serialize, ToSchema)]
pub(super) struct OptOutResponse {
    pub(super) opted_out: bool,
}
