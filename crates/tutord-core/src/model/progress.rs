//! Sums of a student's completions, and leaderboards.

use diesel::prelude::*;
use jiff::civil::{Date, date};
use serde::{Deserialize, Serialize};

use super::{Achievement, Metric, Period, SkillLevel};
use crate::schema::{activity, skill_levels};
use crate::time::{LocalDate, Timestamp};

/// The sums of one local day, or of all time.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset, Serialize, Deserialize)]
#[diesel(table_name = activity, primary_key(user_id, period, starts_on))]
pub struct Activity {
    /// The student.
    pub user_id: i64,
    /// `daily` or `all`.
    pub period: Period,
    /// The local day; 1970-01-01 for all time.
    pub starts_on: LocalDate,
    /// Exercises completed.
    pub exercises_completed: i32,
    /// The sum of the grades.
    pub grade_sum: i64,
    /// The number of completions with a grade.
    pub graded_count: i32,
    /// The number of completions with grade 100.
    pub perfect_grades: i32,
    /// Seconds spent on completed exercises.
    pub time_spent_seconds: i64,
    /// Hints taken for completed exercises.
    pub hints_used: i32,
    /// Points of completions and achievements.
    pub points: i64,
    /// Achievements unlocked.
    pub achievements_unlocked: i32,
    /// For a day, the streak at its end; for all time, the longest streak.
    pub streak: i32,
    /// Consecutive completions without a hint: at the end of the day, or the longest run of all time.
    pub no_hint_run: i32,
    /// Completed easy exercises.
    pub easy: i32,
    /// Completed medium exercises.
    pub medium: i32,
    /// Completed hard exercises.
    pub hard: i32,
    /// Completed exercises of this type.
    pub algorithm: i32,
    /// Completed exercises of this type.
    pub data_structure: i32,
    /// Completed exercises of this type.
    pub debugging: i32,
    /// Completed exercises of this type.
    pub practical: i32,
}

/// Returns the average of the grades, 0 to 100, or `None` without grades.
pub fn average_grade(grade_sum: i64, graded_count: i32) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a sum of numbers up to 100")]
    (graded_count > 0).then(|| grade_sum as f64 / f64::from(graded_count))
}

/// A student's progress in a topic.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable, AsChangeset, Serialize, Deserialize)]
#[diesel(table_name = skill_levels, primary_key(user_id, topic))]
#[diesel(treat_none_as_null = true)]
pub struct TopicSkill {
    /// The student.
    pub user_id: i64,
    /// The topic.
    pub topic: String,
    /// The level.
    pub level: SkillLevel,
    /// The previous level.
    pub previous_level: Option<SkillLevel>,
    /// Exercises completed.
    pub exercises_completed: i32,
    /// The sum of the grades.
    pub grade_sum: i64,
    /// The number of completions with a grade.
    pub graded_count: i32,
    /// Seconds spent.
    pub time_spent_seconds: i64,
    /// The time of the last change of the level.
    pub level_updated_at: Timestamp,
}

/// An achievement, with the time when the student unlocked it.
pub type AchievementStatus = (Achievement, Option<Timestamp>);

/// The data of a student's progress page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProgressOverview {
    /// The sums of all time; `None` before the first completion.
    pub all: Option<Activity>,
    /// All achievements.
    pub achievements: Vec<AchievementStatus>,
    /// The topics, by name.
    pub skills: Vec<TopicSkill>,
}

/// A student's sums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityHistory {
    /// The sums of all time; `None` before the first completion.
    pub all: Option<Activity>,
    /// The sums of days with a completion, oldest first.
    pub days: Vec<Activity>,
}

/// The maximum number of topics of a student that are shown.
pub const MAX_TOPICS: i64 = 500;

/// The identity of a leaderboard.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Board {
    /// The compared value.
    pub metric: Metric,
    /// `weekly`, `monthly` or `all`.
    pub period: Period,
    /// The first day of the period in UTC; see [`starts_on`].
    pub starts_on: LocalDate,
    /// The language in lower case; empty for all languages.
    pub language: String,
}

/// The start date of sums of all time.
pub const ALL_TIME: LocalDate = LocalDate(date(1970, 1, 1));

/// Returns the first day of the week (Monday, ISO 8601) or the month that contains `day`; for all time, 1970-01-01.
pub fn starts_on(period: Period, day: LocalDate) -> LocalDate {
    match period {
        Period::Daily => day,
        Period::Weekly => {
            let since_monday = day.0.weekday().to_monday_zero_offset();
            day.plus_days(-i64::from(since_monday))
        }
        Period::Monthly => LocalDate(day.0.first_of_month()),
        Period::All => ALL_TIME,
    }
}

/// Returns the day of an instant in UTC, which leaderboards use for all students.
pub fn utc_day(at: Timestamp) -> LocalDate {
    LocalDate(Date::from(jiff::tz::Offset::UTC.to_datetime(at.to_jiff())))
}

/// A student's place on a leaderboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderboardEntry {
    /// The rank, from 1; equal values share a rank, and the following ranks are skipped accordingly.
    pub rank: i64,
    /// The student.
    pub user_id: i64,
    /// The display name.
    pub display_name: String,
    /// The URL of the student's picture.
    pub avatar_url: Option<String>,
    /// The points, or the days of a streak.
    pub value: i64,
}

/// A student's place with the neighbours, in the order of the leaderboard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbourhood {
    /// Set if the student has opted out.
    pub opted_out: bool,
    /// The student's own place; `None` before the first completion of the period, or when opted out.
    pub own: Option<LeaderboardEntry>,
    /// The neighbours before.
    pub before: Vec<LeaderboardEntry>,
    /// The neighbours after.
    pub after: Vec<LeaderboardEntry>,
    /// The number of students on the leaderboard.
    pub total: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_on_mondays_and_firsts() {
        let day = |year, month, day| LocalDate(date(year, month, day));
        assert_eq!(starts_on(Period::Weekly, day(2026, 1, 1)), day(2025, 12, 29));
        assert_eq!(starts_on(Period::Weekly, day(2026, 11, 23)), day(2026, 11, 23), "a Monday");
        assert_eq!(starts_on(Period::Weekly, day(2026, 11, 29)), day(2026, 11, 23), "a Sunday");
        assert_eq!(starts_on(Period::Monthly, day(2028, 2, 29)), day(2028, 2, 1));
        assert_eq!(starts_on(Period::All, day(2028, 2, 29)), day(1970, 1, 1));
        let last_microsecond = Timestamp::from_micros(1_767_225_600_000_000 - 1);
        assert_eq!(utc_day(last_microsecond), day(2025, 12, 31));
    }
}
