//! Idempotency keys of submissions and of generated exercises.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::{AssignedExercise, RequestKey};
use tutord_core::schema::{exercise_requests, exercises, user_exercises};
use tutord_core::{Error, Result, Timestamp};

use super::Conn;
use super::rows::{exercise_row, user_exercise_row};

/// Inserts an idempotency key with the stored exercise and submission.
macro_rules! remembered {
    ($user_id:expr, $request:expr, $exercise_id:expr, $submission_id:expr) => {
        diesel::insert_into(exercise_requests::table).values((
            exercise_requests::user_id.eq($user_id),
            exercise_requests::key.eq(&$request.key),
            exercise_requests::fingerprint.eq(&$request.fingerprint[..]),
            exercise_requests::exercise_id.eq($exercise_id),
            exercise_requests::submission_id.eq($submission_id),
            exercise_requests::created_at.eq(Timestamp::now()),
        ))
    };
}

pub(super) use remembered;

/// Stores an idempotency key with the stored exercise and submission. The caller has locked the student.
pub(super) async fn remember(
    conn: &mut Conn,
    user_id: i64,
    request: &RequestKey,
    (exercise_id, submission_id): (i64, Option<i64>),
) -> QueryResult<()> {
    remembered!(user_id, request, exercise_id, submission_id).execute(conn).await?;
    Ok(())
}

/// A row of a request: its fingerprint, the exercise and the submission.
pub(super) type RequestRow = (Vec<u8>, i64, Option<i64>);

/// Selects the result of an earlier request with the same key. No request has an empty key.
macro_rules! earlier_request {
    ($user_id:expr, $key:expr) => {
        exercise_requests::table.find(($user_id, $key)).select((
            exercise_requests::fingerprint,
            exercise_requests::exercise_id,
            exercise_requests::submission_id,
        ))
    };
}

pub(super) use earlier_request;

/// Returns the result of an earlier request with the same key.
async fn find(conn: &mut Conn, user_id: i64, request: &RequestKey) -> Result<Option<(i64, Option<i64>)>> {
    checked(earlier_request!(user_id, &request.key).first(conn).await.optional()?, request)
}

/// Returns the exercise and the submission of an earlier request.
///
/// # Errors
/// Returns [`Error::KeyReused`] if that was another request.
fn checked(found: Option<RequestRow>, request: &RequestKey) -> Result<Option<(i64, Option<i64>)>> {
    match found {
        Some((fingerprint, ..)) if fingerprint != request.fingerprint => Err(Error::KeyReused),
        found => Ok(found.map(|(_, exercise_id, submission_id)| (exercise_id, submission_id))),
    }
}

/// Returns the submission stored by an earlier request, whose row was read.
pub(super) fn submission(found: Vec<RequestRow>, request: &RequestKey) -> Result<Option<i64>> {
    Ok(checked(found.into_iter().next(), request)?.and_then(|(_, submission_id)| submission_id))
}

/// Returns the exercise stored by an earlier request, with the student's progress.
pub(super) async fn created(conn: &mut Conn, user_id: i64, request: &RequestKey) -> Result<Option<AssignedExercise>> {
    let Some((exercise_id, _)) = find(conn, user_id, request).await? else { return Ok(None) };
    let assigned = user_exercises::table
        .inner_join(exercises::table)
        .filter(user_exercises::user_id.eq(user_id))
        .filter(user_exercises::exercise_id.eq(exercise_id))
        .select((exercise_row(), user_exercise_row()))
        .first(conn)
        .await
        .optional()?;
    Ok(assigned)
}
