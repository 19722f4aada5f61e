//! Locks of rows.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::Result;
use tutord_core::schema::users;

use super::Conn;

/// Selects whether the student opted out of leaderboards, and locks the student's row until the transaction ends.
macro_rules! locked_student {
    ($user_id:expr) => {
        for_update!(users::table.find($user_id).select(users::leaderboard_opt_out))
    };
}

pub(super) use locked_student;

/// Locks the student's row until the transaction ends. Returns `true` if the student opted out of leaderboards.
pub(super) async fn lock_student(conn: &mut Conn, user_id: i64) -> Result<bool> {
    Ok(locked_student!(user_id).get_result(conn).await?)
}
