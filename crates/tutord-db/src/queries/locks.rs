//! Locks of rows.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::Result;
use tutord_core::schema::users;

use super::Conn;

/// Locks the student's row until the transaction ends. Returns `true` if the student opted out of leaderboards.
pub(super) async fn lock_student(conn: &mut Conn, user_id: i64) -> Result<bool> {
    let student = users::table.find(user_id).select(users::leaderboard_opt_out);
    Ok(for_update!(student).get_result(conn).await?)
}
