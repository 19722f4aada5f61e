//! N+1 with rusqlite. Run: `cargo run --example rusqlite` in this directory.

use querywatch::{Scope, Watch};
use rusqlite::{Connection, OptionalExtension as _};

fn main() -> rusqlite::Result<()> {
    let watch = Watch::builder().build();
    let conn = Connection::open_in_memory()?;
    conn.execute_batch("CREATE TABLE items (id INTEGER, name TEXT)")?;
    let sql = "SELECT name FROM items WHERE id = ?1";
    let (result, report) = Scope::new(&watch, "GET /items").run_sync(|| {
        for id in 0..9 {
            let load = || conn.query_row(sql, [id], |row| row.get::<_, String>(0)).optional();
            watch.timed_sync(sql, load)?;
        }
        Ok(())
    });
    println!("{} statements; {}", report.statements, report.findings[0]);
    result
}
