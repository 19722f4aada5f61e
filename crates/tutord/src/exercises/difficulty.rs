//! Analysis of whether a student should get harder or easier exercises.
//!
//! Three consecutive successes (completed without a hint) raise the difficulty. Two consecutive struggles (a grade
//! below passing, three or more hints, or skipped) lower it. Only exercises of the current difficulty count, so that
//! one change is not immediately followed by another.

use tutord_core::model::{Difficulty, ExerciseStatus, HistoryItem, PASSING_GRADE};

const SUCCESSES: usize = 3;
const STRUGGLES: usize = 2;
const MANY_HINTS: i32 = 3;

/// The result of an analysis of the newest exercises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Performance {
    pub(super) analyzed: usize,
    pub(super) average_grade: Option<f64>,
    pub(super) average_hints: f64,
    pub(super) average_time_seconds: f64,
    /// 0 to 1.
    pub(super) completion_rate: f64,
    pub(super) successes: usize,
    pub(super) struggles: usize,
}

/// The recommendation of an analysis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Analysis {
    pub(super) current: Difficulty,
    pub(super) recommended: Difficulty,
    pub(super) performance: Performance,
}

/// A change of the difficulty of future daily exercises.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adjustment {
    pub(super) previous: Difficulty,
    pub(super) difficulty: Difficulty,
}

fn is_struggle(item: &HistoryItem) -> bool {
    let user_exercise = &item.user_exercise;
    user_exercise.status == ExerciseStatus::Skipped
        || user_exercise.hints_used >= MANY_HINTS
        || user_exercise.grade.is_some_and(|grade| grade < PASSING_GRADE)
}

fn is_success(item: &HistoryItem) -> bool {
    item.user_exercise.status == ExerciseStatus::Completed && item.user_exercise.hints_used == 0 && !is_struggle(item)
}

/// Returns the performance in ended exercises, given newest first.
pub(super) fn performance(ended: &[HistoryItem]) -> Performance {
    let average = |sum: f64, count: usize| if count == 0 { 0.0 } else { sum / as_f64(count) };
    let grades: Vec<i32> = ended.iter().filter_map(|item| item.user_exercise.grade).collect();
    let sum_of = |value: fn(&HistoryItem) -> i32| ended.iter().map(|item| f64::from(value(item))).sum::<f64>();
    let completed = ended.iter().filter(|item| item.user_exercise.status == ExerciseStatus::Completed).count();
    Performance {
        analyzed: ended.len(),
        average_grade: (!grades.is_empty())
            .then(|| average(grades.iter().map(|grade| f64::from(*grade)).sum(), grades.len())),
        average_hints: average(sum_of(|item| item.user_exercise.hints_used), ended.len()),
        average_time_seconds: average(sum_of(|item| item.user_exercise.time_spent_seconds), ended.len()),
        completion_rate: average(as_f64(completed), ended.len()),
        successes: ended.iter().take_while(|item| is_success(item)).count(),
        struggles: ended.iter().take_while(|item| is_struggle(item)).count(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of at most some hundred")]
const fn as_f64(count: usize) -> f64 {
    count as f64
}

/// Returns the suitable difficulty, given the newest exercises of the current one.
pub(super) fn recommended(present: Difficulty, performance: &Performance) -> Difficulty {
    if performance.successes >= SUCCESSES {
        return match present {
            Difficulty::Easy => Difficulty::Medium,
            Difficulty::Medium | Difficulty::Hard => Difficulty::Hard,
        };
    }
    if performance.struggles >= STRUGGLES {
        return match present {
            Difficulty::Hard => Difficulty::Medium,
            Difficulty::Medium | Difficulty::Easy => Difficulty::Easy,
        };
    }
    present
}

#[cfg(test)]
mod tests {
    use tutord_core::Timestamp;
    use tutord_core::model::{ExerciseType, UserExercise};

    use super::*;

    fn item(status: ExerciseStatus, grade: Option<i32>, hints_used: i32) -> HistoryItem {
        let at = Timestamp::from_micros(0);
        HistoryItem {
            user_exercise: UserExercise {
                id: 1,
                user_id: 1,
                exercise_id: 1,
                daily_date: None,
                status,
                grade,
                feedback: None,
                hints_used,
                submission_count: 0,
                time_spent_seconds: 60,
                points_earned: 0,
                started_at: None,
                completed_at: None,
                completed_on: None,
                skip_count: 0,
                due_on: None,
                created_at: at,
            },
            title: String::new(),
            difficulty: Difficulty::Medium,
            exercise_type: ExerciseType::Algorithm,
            programming_language: String::new(),
            topics: String::new(),
        }
    }

    #[test]
    fn runs_of_successes_raise_and_runs_of_struggles_lower() {
        let success = || item(ExerciseStatus::Completed, Some(80), 0);
        let skipped = || item(ExerciseStatus::Skipped, None, 0);
        let hinted = || item(ExerciseStatus::Completed, Some(80), 1);
        let lost = || item(ExerciseStatus::Completed, None, 3);
        let after = |present, ended: &[HistoryItem]| recommended(present, &performance(ended));
        assert_eq!(after(Difficulty::Easy, &[success(), success(), success()]), Difficulty::Medium);
        assert_eq!(after(Difficulty::Hard, &[success(), success(), success()]), Difficulty::Hard);
        assert_eq!(after(Difficulty::Easy, &[success(), success(), hinted(), success()]), Difficulty::Easy);
        assert_eq!(after(Difficulty::Hard, &[skipped(), lost()]), Difficulty::Medium);
        assert_eq!(after(Difficulty::Easy, &[skipped(), lost()]), Difficulty::Easy);
        assert_eq!(after(Difficulty::Hard, &[skipped(), success(), lost()]), Difficulty::Hard);
        assert_eq!(
            after(Difficulty::Hard, &[item(ExerciseStatus::Completed, Some(59), 0), lost()]),
            Difficulty::Medium
        );
        assert_eq!(after(Difficulty::Hard, &[]), Difficulty::Hard);
    }

    #[test]
    fn averages_of_nothing_are_no_numbers_out_of_nowhere() {
        let nothing = performance(&[]);
        assert_eq!((nothing.average_grade, nothing.completion_rate, nothing.analyzed), (None, 0.0, 0));
        let some = performance(&[item(ExerciseStatus::Completed, Some(50), 2), item(ExerciseStatus::Skipped, None, 0)]);
        assert_eq!((some.average_grade, some.average_hints, some.completion_rate), (Some(50.0), 1.0, 0.5));
        assert_eq!(some.average_time_seconds, 60.0);
    }
}
