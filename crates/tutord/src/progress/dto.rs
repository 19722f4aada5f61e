//! The JSON of the progress routes.

use std::collections::BTreeMap;

use garde::Validate;
use serde::{Deserialize, Serialize};
use tutord_core::model::progress::{Activity, LeaderboardEntry, Neighbourhood, TopicSkill, average_grade};
use tutord_core::model::{Achievement, AchievementCategory, Period, Rarity, SkillLevel};
use tutord_core::{LocalDate, Page, PageRequest, Timestamp};
use utoipa::ToSchema;

use crate::http::json::trimmed;
use crate::http::validation::time_zone;

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

impl AchievementItem {
    pub(super) fn new(achievement: Achievement, unlocked_at: Option<Timestamp>, progress: i32) -> Self {
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

impl Badge {
    pub(super) fn new(achievement: Achievement, earned_at: Option<Timestamp>) -> Self {
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
    pub(super) fn new(date: LocalDate, activity: Option<&Activity>) -> Self {
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
    total: i64,
    limit: i64,
    /// Null on pages requested by cursor.
    offset: Option<i64>,
    has_more: bool,
    next_cursor: Option<String>,
}

impl LeaderboardList {
    pub(super) fn new(page: Page<LeaderboardEntry>, request: &PageRequest) -> Self {
        Self {
            entries: items(page.items),
            total: page.total,
            limit: request.limit,
            offset: request.offset(),
            has_more: page.has_more,
            next_cursor: page.next.map(|cursor| cursor.encode()),
        }
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
