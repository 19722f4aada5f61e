//! rusqlite by `timed_sync`.

use querywatch::{Scope, Watch};
use querywatch_adapters::{TABLE, assert_n_plus_one};
use rusqlite::{Connection, OptionalExtension as _};

const BY_ID: &str = "SELECT name FROM items WHERE id = ?1";

fn connect() -> Connection {
    let conn = Connection::open_in_memory().unwrap();
    conn.execute_batch(TABLE).unwrap();
    conn
}

#[test]
fn n_plus_one() {
    let (watch, conn) = (Watch::builder().build(), connect());
    let (_, report) = Scope::new(&watch, "GET /items").run_sync(|| {
        for id in 0..9 {
            let load = || conn.query_row(BY_ID, [id], |row| row.get::<_, String>(0)).optional();
            watch.timed_sync(BY_ID, load).unwrap();
        }
    });
    assert_n_plus_one(&report, "SELECT name FROM items WHERE id = ?");
}

#[test]
fn a_budget_holds_and_failures_are_recorded() {
    let (watch, conn) = (Watch::builder().build(), connect());
    let insert = "INSERT INTO items VALUES (1, 'duplicate')";
    let (_, report) = Scope::new(&watch, "POST /items").run_sync(|| {
        watch
            .timed_sync("DELETE FROM items WHERE id = 3", || conn.execute("DELETE FROM items WHERE id = 3", []))
            .unwrap();
        watch.timed_sync(insert, || conn.execute(insert, [])).unwrap_err();
    });
    report.assert_budget(2);
    assert_eq!((watch.totals().since_start.calls, watch.totals().since_start.errors), (2, 1));
}
