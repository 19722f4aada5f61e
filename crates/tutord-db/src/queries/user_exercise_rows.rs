//! Rows of the progress of students in exercises.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::{Exercise, ExerciseKey, ExerciseStatus, UserExercise};
use tutord_core::schema::user_exercises;
use tutord_core::{LocalDate, Result, Timestamp};

use super::Conn;
use super::rows::user_exercise_row;

/// Inserts the progress of a student in an exercise that is not started.
macro_rules! unstarted {
    ($user_id:expr, $exercise_id:expr, $daily:expr) => {{
        let (daily, now): (Option<(LocalDate, Timestamp)>, _) = ($daily, Timestamp::now());
        diesel::insert_into(user_exercises::table).values((
            user_exercises::user_id.eq($user_id),
            user_exercises::exercise_id.eq($exercise_id),
            user_exercises::daily_date.eq(daily.map(|(date, _)| date)),
            user_exercises::daily_since.eq(daily.map(|(_, since)| since)),
            user_exercises::status.eq(ExerciseStatus::Pending),
            user_exercises::created_at.eq(now),
            user_exercises::updated_at.eq(now),
        ))
    }};
}

/// Marks an exercise as started, together with other changes.
macro_rules! started {
    ($progress:expr, $at:expr, $changes:expr) => {
        CachedStatement(diesel::update(own_row!($progress)).set((
            $changes,
            user_exercises::status.eq(ExerciseStatus::InProgress),
            user_exercises::started_at.eq($progress.started_at.unwrap_or($at)),
            user_exercises::updated_at.eq($at),
        )))
    };
}

/// Selects the row of a student's progress, which need not have an id yet.
macro_rules! own_row {
    ($progress:expr) => {
        user_exercises::table
            .filter(user_exercises::user_id.eq($progress.user_id))
            .filter(user_exercises::exercise_id.eq($progress.exercise_id))
    };
}

pub(super) use own_row;
pub(super) use started;
pub(super) use unstarted;

/// Inserts the progress of a student in an exercise that is not started.
pub(super) async fn insert(conn: &mut Conn, user_id: i64, exercise_id: i64) -> QueryResult<UserExercise> {
    unstarted!(user_id, exercise_id, None).returning(user_exercise_row()).get_result(conn).await
}

/// An exercise with the student's progress, read after the student's row was locked.
pub(super) struct Locked {
    /// Set if the student opted out of leaderboards.
    pub(super) opted_out: bool,
    pub(super) exercise: Exercise,
    pub(super) key: ExerciseKey,
    /// Without an id if the student has not started the exercise.
    pub(super) progress: UserExercise,
    pub(super) is_stored: bool,
}

impl Locked {
    /// Combines the rows. Returns `None` without an exercise.
    ///
    /// # Errors
    /// Returns an error if the student does not exist.
    pub(super) fn new(
        user_id: i64,
        student: Vec<bool>,
        exercise: Vec<(Exercise, ExerciseKey)>,
        progress: Vec<UserExercise>,
    ) -> Result<Option<Self>> {
        let opted_out = student.into_iter().next().ok_or(diesel::result::Error::NotFound)?;
        let progress = progress.into_iter().next();
        Ok(exercise.into_iter().next().map(|(exercise, key)| Self {
            opted_out,
            is_stored: progress.is_some(),
            progress: progress.unwrap_or_else(|| not_started(user_id, exercise.id)),
            exercise,
            key,
        }))
    }
}

fn not_started(user_id: i64, exercise_id: i64) -> UserExercise {
    UserExercise {
        id: 0,
        user_id,
        exercise_id,
        daily_date: None,
        status: ExerciseStatus::Pending,
        grade: None,
        feedback: None,
        hints_used: 0,
        submission_count: 0,
        time_spent_seconds: 0,
        points_earned: 0,
        started_at: None,
        completed_at: None,
        completed_on: None,
        skip_count: 0,
        due_on: None,
        created_at: Timestamp::now(),
    }
}
