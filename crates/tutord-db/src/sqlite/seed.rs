//! Bulk load by prepared statements in one transaction.

use diesel::connection::SimpleConnection;
use diesel::dsl::{max, sql};
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel::sqlite::SqliteConnection;
use tutord_core::operations::SeedPlan;
use tutord_core::schema::{conversations, exercises, messages, users};

use crate::seed::{HighestIds, SeedRows};

/// The number of rows between two progress reports.
const REPORTED: u64 = 1_000;

/// Loads all rows in one transaction, on the calling thread.
pub(super) fn load(
    conn: &mut SqliteConnection,
    plan: &SeedPlan,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> QueryResult<u64> {
    let done = conn.immediate_transaction(|conn| {
        macro_rules! newest {
            ($table:ident) => {
                $table::table.select(max($table::id)).first::<Option<i64>>(conn)?.unwrap_or(0)
            };
        }
        let ids = HighestIds {
            users: handed_out(conn, "users")?,
            exercises: newest!(exercises),
            conversations: handed_out(conn, "conversations")?,
            messages: newest!(messages),
        };
        let rows = SeedRows::new(plan, ids);
        let mut done = 0;
        macro_rules! insert {
            ($table:ident, $rows:expr) => {
                for row in $rows {
                    diesel::insert_into($table::table).values(row).execute(conn)?;
                    done += 1;
                    if done % REPORTED == 0 {
                        progress(done);
                    }
                }
            };
        }
        insert!(users, rows.users());
        insert!(exercises, rows.exercises());
        insert!(conversations, rows.conversations());
        insert!(messages, rows.messages());
        QueryResult::Ok(done)
    })?;
    progress(done);
    // The planner should know of the rows, and the write-ahead log should not keep them twice.
    conn.batch_execute("ANALYZE; PRAGMA wal_checkpoint(TRUNCATE);")?;
    Ok(done)
}

/// Returns the highest id ever assigned by an `AUTOINCREMENT` table, so that ids of removed rows are not reused.
fn handed_out(conn: &mut SqliteConnection, table: &str) -> QueryResult<i64> {
    let newest = format!("COALESCE((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0)");
    diesel::select(sql::<BigInt>(&newest)).get_result(conn)
}
