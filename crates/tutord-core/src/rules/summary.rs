//! Accumulation of completions into sums.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::level;
use super::points::points;
use super::streak::Streak;
use crate::model::progress::{ALL_TIME, Activity, Board, TopicSkill, starts_on, utc_day};
use crate::model::{Difficulty, ExerciseType, Metric, Period, Requirement, SkillLevel};
use crate::time::{LocalDate, Timestamp};

/// The data of a completion that sums depend on.
#[derive(Debug, Clone)]
pub struct CompletedExercise {
    /// The difficulty of the exercise.
    pub difficulty: Difficulty,
    /// The type of the exercise.
    pub exercise_type: ExerciseType,
    /// The lower-case name of the programming language.
    pub language: String,
    /// The distinct topics.
    pub topics: Vec<String>,
    /// The grade, 0 to 100, if the solution was graded.
    pub grade: Option<i32>,
    /// The number of hints taken.
    pub hints_used: i32,
    /// The time spent, in seconds.
    pub time_spent_seconds: i32,
    /// The time of the completion.
    pub completed_at: Timestamp,
    /// The student's local day of the completion.
    pub day: LocalDate,
    /// The student's time zone at the completion, if recorded.
    pub zone: Option<TimeZone>,
}

/// The sums of a student: of all time and of the newest day with a completion, and the streak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The sums of all time.
    pub all: Activity,
    /// The sums of the newest day with a completion.
    pub newest: Option<Activity>,
    /// The streak after the newest completion.
    pub streak: Option<Streak>,
}

impl Activity {
    fn empty(user_id: i64, period: Period, day: LocalDate) -> Self {
        Self {
            user_id,
            period,
            starts_on: day,
            exercises_completed: 0,
            grade_sum: 0,
            graded_count: 0,
            perfect_grades: 0,
            time_spent_seconds: 0,
            hints_used: 0,
            points: 0,
            achievements_unlocked: 0,
            streak: 0,
            no_hint_run: 0,
            easy: 0,
            medium: 0,
            hard: 0,
            algorithm: 0,
            data_structure: 0,
            debugging: 0,
            practical: 0,
        }
    }

    fn count(&mut self, done: &CompletedExercise) {
        self.exercises_completed += 1;
        if let Some(grade) = done.grade {
            self.grade_sum += i64::from(grade);
            self.graded_count += 1;
            self.perfect_grades += i32::from(grade == 100);
        }
        self.time_spent_seconds += i64::from(done.time_spent_seconds);
        self.hints_used += done.hints_used;
        self.points += i64::from(points(done.difficulty));
        *match done.difficulty {
            Difficulty::Easy => &mut self.easy,
            Difficulty::Medium => &mut self.medium,
            Difficulty::Hard => &mut self.hard,
        } += 1;
        *match done.exercise_type {
            ExerciseType::Algorithm => &mut self.algorithm,
            ExerciseType::DataStructure => &mut self.data_structure,
            ExerciseType::Debugging => &mut self.debugging,
            ExerciseType::Practical => &mut self.practical,
        } += 1;
    }

    fn add(&mut self, other: &Self) {
        self.exercises_completed += other.exercises_completed;
        self.grade_sum += other.grade_sum;
        self.graded_count += other.graded_count;
        self.perfect_grades += other.perfect_grades;
        self.time_spent_seconds += other.time_spent_seconds;
        self.hints_used += other.hints_used;
        self.points += other.points;
        self.achievements_unlocked += other.achievements_unlocked;
        self.easy += other.easy;
        self.medium += other.medium;
        self.hard += other.hard;
        self.algorithm += other.algorithm;
        self.data_structure += other.data_structure;
        self.debugging += other.debugging;
        self.practical += other.practical;
        self.streak = self.streak.max(other.streak);
        self.no_hint_run = self.no_hint_run.max(other.no_hint_run);
    }

    /// Returns the sums of several days of a student, including the longest of their runs.
    pub fn sum(user_id: i64, days: &[Self]) -> Self {
        let mut sum = Self::empty(user_id, Period::All, ALL_TIME);
        for day in days {
            sum.add(day);
        }
        sum
    }
}

impl Summary {
    /// Before the first completion.
    pub fn empty(user_id: i64) -> Self {
        Self { all: Activity::empty(user_id, Period::All, ALL_TIME), newest: None, streak: None }
    }

    /// Returns the streak after another completion, which counts for the streak's newest day.
    pub fn streak_with(&self, done: &CompletedExercise) -> Streak {
        Streak::extended(self.streak, done.completed_at, done.day, done.zone.as_ref())
    }

    /// Adds a completion. [`newest`](Self::newest) is then the day that the completion counts for.
    pub fn count(&mut self, done: &CompletedExercise) -> &mut Activity {
        let Streak { day, days: streak, .. } = *self.streak.insert(self.streak_with(done));
        let run = self.newest.as_ref().map_or(0, |newest| newest.no_hint_run);
        let mut today = match self.newest.take() {
            Some(newest) if newest.starts_on == day => newest,
            _ => Activity::empty(self.all.user_id, Period::Daily, day),
        };
        today.count(done);
        today.streak = streak;
        today.no_hint_run = if done.hints_used == 0 { run + 1 } else { 0 };
        self.all.count(done);
        self.all.streak = self.all.streak.max(today.streak);
        self.all.no_hint_run = self.all.no_hint_run.max(today.no_hint_run);
        self.newest.insert(today)
    }

    /// Adds the achievements unlocked by the newest completion.
    pub fn reward(&mut self, achievements: i32, points: i32) {
        for sums in [Some(&mut self.all), self.newest.as_mut()].into_iter().flatten() {
            sums.achievements_unlocked += achievements;
            sums.points += i64::from(points);
        }
    }
}

impl TopicSkill {
    /// Before the first completion.
    pub fn empty(user_id: i64, topic: String, at: Timestamp) -> Self {
        Self {
            user_id,
            topic,
            level: SkillLevel::Beginner,
            previous_level: None,
            exercises_completed: 0,
            grade_sum: 0,
            graded_count: 0,
            time_spent_seconds: 0,
            level_updated_at: at,
        }
    }

    /// Adds a completion.
    pub fn count(&mut self, done: &CompletedExercise) {
        self.exercises_completed += 1;
        if let Some(grade) = done.grade {
            self.grade_sum += i64::from(grade);
            self.graded_count += 1;
        }
        self.time_spent_seconds += i64::from(done.time_spent_seconds);
        let level = level::of(self.exercises_completed, self.grade_sum, self.graded_count);
        if level != self.level {
            self.previous_level = Some(self.level);
            self.level = level;
            self.level_updated_at = done.completed_at;
        }
    }
}

/// Returns a student's progress in a requirement. `best_level` is the highest [`level::rank`] of any topic.
pub fn reached(requirement: Requirement, all: &Activity, best_level: i32) -> i32 {
    match requirement {
        Requirement::Streak => all.streak,
        Requirement::Exercises => all.exercises_completed,
        Requirement::TopicLevel => best_level,
        Requirement::PerfectGrades => all.perfect_grades,
        Requirement::NoHintRun => all.no_hint_run,
    }
}

/// Returns `true` if an achievement with this requirement is unlocked.
pub fn unlocks(requirement: Requirement, value: i32, all: &Activity, best_level: i32) -> bool {
    reached(requirement, all, best_level) >= value
}

/// Returns the leaderboards on which a completion at `at` counts.
fn boards(at: Timestamp, language: &str) -> Vec<Board> {
    let day = utc_day(at);
    let mut boards = Vec::with_capacity(12);
    for period in [Period::All, Period::Weekly, Period::Monthly] {
        for language in ["", language] {
            for metric in [Metric::Points, Metric::Streak] {
                let starts_on = starts_on(period, day);
                boards.push(Board { metric, period, starts_on, language: language.to_owned() });
            }
        }
    }
    boards
}

/// A student's values on leaderboards, from the whole history.
#[derive(Debug, Default)]
pub struct BoardValues(pub BTreeMap<(Period, LocalDate, String, Metric), i64>);

impl BoardValues {
    /// Adds a completion with all its points.
    pub fn count(&mut self, done: &CompletedExercise, points: i32, streak: i32) {
        for board in boards(done.completed_at, &done.language) {
            let metric = board.metric;
            let value = self.0.entry((board.period, board.starts_on, board.language, metric)).or_default();
            *value = match metric {
                Metric::Points => *value + i64::from(points),
                Metric::Streak => (*value).max(i64::from(streak)),
            };
        }
    }
}
