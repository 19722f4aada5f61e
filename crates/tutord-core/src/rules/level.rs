//! Levels of a topic, by the number of completed exercises and their grades.

use crate::model::SkillLevel;
use crate::model::progress::average_grade;

/// The requirements of a level: completed exercises and an average grade.
const REQUIREMENTS: [(SkillLevel, i32, f64); 3] =
    [(SkillLevel::Expert, 50, 80.0), (SkillLevel::Advanced, 30, 70.0), (SkillLevel::Intermediate, 10, 60.0)];

/// Returns the level of a topic. Without grades it stays `beginner`, because completions alone show no skill.
pub fn of(exercises_completed: i32, grade_sum: i64, graded_count: i32) -> SkillLevel {
    let average = average_grade(grade_sum, graded_count).unwrap_or(0.0);
    REQUIREMENTS
        .into_iter()
        .find(|(_, count, grade)| exercises_completed >= *count && average >= *grade)
        .map_or(SkillLevel::Beginner, |(level, ..)| level)
}

/// Returns the rank of a level, from 0 for `beginner` to 3.
pub const fn rank(level: SkillLevel) -> i32 {
    match level {
        SkillLevel::Beginner => 0,
        SkillLevel::Intermediate => 1,
        SkillLevel::Advanced => 2,
        SkillLevel::Expert => 3,
    }
}

/// Returns the next level and the progress towards it, 0 to 100: the lower of the progress in exercises and in the
/// average grade. Returns `None` for experts.
pub fn next(level: SkillLevel, exercises_completed: i32, average: Option<f64>) -> Option<(SkillLevel, f64)> {
    let (next, count, grade) = REQUIREMENTS.into_iter().rev().find(|(next, ..)| rank(*next) > rank(level))?;
    let by_count = f64::from(exercises_completed) / f64::from(count);
    let by_grade = average.unwrap_or(0.0) / grade;
    Some((next, 100.0 * by_count.min(by_grade).min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_need_exercises_and_grades() {
        assert_eq!(of(9, 900, 9), SkillLevel::Beginner);
        assert_eq!(of(10, 600, 10), SkillLevel::Intermediate);
        assert_eq!(of(10, 599, 10), SkillLevel::Beginner);
        assert_eq!(of(30, 30 * 70, 30), SkillLevel::Advanced);
        assert_eq!(of(50, 50 * 80 - 1, 50), SkillLevel::Advanced);
        assert_eq!(of(50, 50 * 80, 50), SkillLevel::Expert);
        assert_eq!(of(60, 0, 0), SkillLevel::Beginner, "no grade, no skill shown");
    }

    #[test]
    fn the_scarcer_part_tells_how_far_it_is() {
        assert_eq!(next(SkillLevel::Beginner, 5, Some(90.0)), Some((SkillLevel::Intermediate, 50.0)));
        assert_eq!(next(SkillLevel::Beginner, 20, Some(30.0)), Some((SkillLevel::Intermediate, 50.0)));
        assert_eq!(next(SkillLevel::Advanced, 50, Some(90.0)), Some((SkillLevel::Expert, 100.0)));
        assert_eq!(next(SkillLevel::Expert, 99, Some(90.0)), None);
    }
}
