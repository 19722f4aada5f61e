//! Rows of the progress of students in exercises.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::{ExerciseStatus, UserExercise};
use tutord_core::schema::user_exercises;
use tutord_core::{LocalDate, Timestamp};

use super::Conn;
use super::rows::user_exercise_row;
use crate::cached_statement::CachedStatement;

/// Inserts the progress of a student in an exercise that is not started.
pub(super) async fn insert(
    conn: &mut Conn,
    user_id: i64,
    exercise_id: i64,
    daily: Option<(LocalDate, Timestamp)>,
) -> QueryResult<UserExercise> {
    let now = Timestamp::now();
    diesel::insert_into(user_exercises::table)
        .values((
            user_exercises::user_id.eq(user_id),
            user_exercises::exercise_id.eq(exercise_id),
            user_exercises::daily_date.eq(daily.map(|(date, _)| date)),
            user_exercises::daily_since.eq(daily.map(|(_, since)| since)),
            user_exercises::status.eq(ExerciseStatus::Pending),
            user_exercises::created_at.eq(now),
            user_exercises::updated_at.eq(now),
        ))
        .returning(user_exercise_row())
        .get_result(conn)
        .await
}

/// The changes of a step with an open exercise; `None` leaves a column unchanged.
#[derive(Default, AsChangeset)]
#[diesel(table_name = user_exercises)]
pub(super) struct UserExerciseChanges {
    pub(super) hints_used: Option<i32>,
    pub(super) submission_count: Option<i32>,
    pub(super) time_spent_seconds: Option<i32>,
    pub(super) grade: Option<i32>,
    pub(super) feedback: Option<String>,
}

/// Marks an open exercise as started, together with other changes.
pub(super) async fn start(
    conn: &mut Conn,
    user_exercise: &UserExercise,
    at: Timestamp,
    changes: UserExerciseChanges,
) -> QueryResult<UserExercise> {
    CachedStatement(
        diesel::update(user_exercises::table.find(user_exercise.id))
            .set((
                changes,
                user_exercises::status.eq(ExerciseStatus::InProgress),
                user_exercises::started_at.eq(user_exercise.started_at.unwrap_or(at)),
                user_exercises::updated_at.eq(at),
            ))
            .returning(user_exercise_row()),
    )
    .get_result(conn)
    .await
}
