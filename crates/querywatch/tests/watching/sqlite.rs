//! diesel on SQLite.

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use querywatch::{Scope, Watch};

use crate::fixture::{items, name_of, shape, sqlite};

#[test]
fn statements_have_shapes_and_values_are_not_stored() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    assert_eq!(name_of(&mut conn, 2).as_deref(), Some("two"));
    assert_eq!(name_of(&mut conn, 3).as_deref(), Some("three"));
    diesel::insert_into(items::table).values((items::id.eq(77), items::name.eq("secret"))).execute(&mut conn).unwrap();
    diesel::sql_query("UPDATE items SET name = 'secret' WHERE id = 77").execute(&mut conn).unwrap();

    let select = shape(&watch, "SELECT");
    assert_eq!(select.sql, "SELECT `items`.`name` FROM `items` WHERE (`items`.`id` = ?) LIMIT ?");
    assert_eq!((select.since_start.calls, select.window.calls, select.since_start.errors), (2, 2, 0));
    assert!(
        select.since_start.p50_us <= select.since_start.p99_us
            && select.since_start.p99_us <= select.since_start.max_us
    );
    assert_eq!(shape(&watch, "UPDATE").sql, "UPDATE items SET name = ? WHERE id = ?");
    let everything =
        serde_json::to_string(&(watch.shapes(), watch.totals(), watch.slow_statements(), watch.findings())).unwrap();
    assert!(!everything.contains("secret") && !everything.contains("77 "), "{everything}");
}

#[test]
fn lists_and_rows_of_any_length_are_one_shape() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    for ids in [vec![1], vec![1, 2], vec![1, 2, 3]] {
        assert_eq!(
            items::table.filter(items::id.eq_any(&ids)).load::<(i32, String)>(&mut conn).unwrap().len(),
            ids.len()
        );
    }
    for first in [10, 20] {
        let rows: Vec<_> = (first..first + first / 10).map(|id| (items::id.eq(id), items::name.eq("x"))).collect();
        diesel::insert_into(items::table).values(rows).execute(&mut conn).unwrap();
    }
    assert_eq!(shape(&watch, "SELECT").since_start.calls, 3);
    assert_eq!(shape(&watch, "INSERT").since_start.calls, 2);
    assert_eq!(watch.totals().shapes, 2);
}

#[test]
fn transactions_are_statements() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| {
        conn.transaction(|conn| {
            name_of(conn, 1);
            conn.transaction(|conn| diesel::delete(items::table.find(1)).execute(conn))
        })
        .unwrap();
        let _ = conn.transaction(|_| Err::<(), _>(diesel::result::Error::RollbackTransaction));
    });
    assert_eq!(report.statements, 8);
    let statements: Vec<String> = report.shapes().into_iter().map(|shape| shape.sql).collect();
    for control in ["BEGIN", "SAVEPOINT", "RELEASE", "COMMIT", "ROLLBACK"] {
        assert!(statements.iter().any(|sql| sql.starts_with(control)), "{control} is not in {statements:?}");
        assert!(shape(&watch, control).transaction_control);
    }
}

#[test]
fn failures_and_batches_are_counted() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    diesel::insert_into(items::table).values((items::id.eq(1), items::name.eq("x"))).execute(&mut conn).unwrap_err();
    diesel::sql_query("SELECT nothing FROM nowhere").execute(&mut conn).unwrap_err();
    conn.batch_execute("DELETE FROM items; DELETE FROM items").unwrap();
    let (insert, select) = (shape(&watch, "INSERT"), shape(&watch, "SELECT nothing"));
    assert_eq!((insert.since_start.calls, insert.since_start.errors), (1, 1));
    assert_eq!((select.since_start.calls, select.since_start.errors), (1, 1));
    assert_eq!(shape(&watch, "DELETE").sql, "DELETE FROM items; DELETE FROM items");
    let totals = watch.totals();
    assert_eq!((totals.since_start.calls, totals.since_start.errors, totals.shapes), (3, 2, 3));
    assert_eq!(totals.series.iter().map(|point| point.calls).sum::<u64>(), 3);
}

#[test]
fn a_shape_has_routes_and_a_series() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    for (route, times) in [("GET /a", 1), ("GET /b", 2)] {
        Scope::new(&watch, route).run_sync(|| (0..times).for_each(|id| drop(name_of(&mut conn, id))));
    }
    name_of(&mut conn, 1);
    let select = shape(&watch, "SELECT");
    let routes: Vec<_> = select.routes.iter().map(|route| (route.route.as_str(), route.calls)).collect();
    assert_eq!(routes, [("GET /b", 2), ("GET /a", 1)]);
    let detail = watch.shape(&select.id).unwrap();
    assert_eq!(detail.series.iter().map(|point| point.calls).sum::<u64>(), 4);
    assert!(watch.shape("0000000000000000").is_none() && watch.shape("no id").is_none());
}

#[test]
fn evicted_shapes_are_merged() {
    let watch = Watch::builder().max_shapes(10).build();
    let mut conn = sqlite(&watch);
    for n in 0..50 {
        diesel::sql_query(format!("SELECT id AS c{n} FROM items")).execute(&mut conn).unwrap();
        name_of(&mut conn, n);
    }
    let totals = watch.totals();
    assert_eq!(totals.since_start.calls, 100);
    assert!(totals.shapes <= 10 && totals.folded_shapes >= 40);
    assert_eq!(shape(&watch, "SELECT `items`").since_start.calls, 50);
    let other = watch.shape("other").unwrap().shape;
    assert_eq!(watch.shapes().iter().map(|shape| shape.since_start.calls).sum::<u64>(), 100);
    assert!(other.since_start.calls >= 40);
}

#[test]
fn texts_with_new_values_share_a_shape() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    for n in 0..2_000 {
        diesel::sql_query(format!("SELECT name FROM items WHERE id = {n}")).execute(&mut conn).unwrap();
    }
    assert_eq!((watch.totals().shapes, shape(&watch, "SELECT").since_start.calls), (1, 2_000));
}
