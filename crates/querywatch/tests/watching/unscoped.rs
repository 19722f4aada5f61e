//! Statements outside of every scope, and assertions that must not pass without any statement.

use std::panic::{AssertUnwindSafe, catch_unwind};

use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use querywatch::{Scope, Watch, in_current_scope, in_current_scope_sync};

use crate::fixture::{name_of, sqlite};

/// Returns the message of the assertion that fails.
fn failure(assertion: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(assertion)).unwrap_err();
    payload.downcast_ref::<String>().cloned().unwrap()
}

#[test]
fn a_budget_without_statements_fails_unless_none_is_expected() {
    let watch = Watch::builder().build();
    let mut unwatched = SqliteConnection::establish(":memory:").unwrap();
    let run = || diesel::sql_query("SELECT 1").execute(&mut unwatched).unwrap();
    let (_, report) = Scope::new(&watch, "GET /").budget(2).run_sync(run);
    // The budget at run time does not fail.
    assert!(report.findings.is_empty());
    let message = failure(|| report.assert_budget(2));
    assert!(message.starts_with("no statement was recorded, but the budget is 2"), "{message}");
    report.assert_budget(0);
}

#[tokio::test]
#[should_panic(expected = "no statement was recorded, but the budget is 3")]
async fn the_macro_fails_without_statements_too() {
    querywatch::assert_budget!(3, async {});
}

#[tokio::test]
async fn the_macro_accepts_that_none_is_expected() {
    querywatch::assert_budget!(0, async {});
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_names_what_lost_the_scope() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for spawner in ["tokio::spawn", "tokio::task::spawn_blocking", "std::thread::spawn", "rayon"] {
        let watch = Watch::builder().capture_locations(true).build();
        // Statements before the scope are not lost by it.
        let mut conn = sqlite(&watch);
        name_of(&mut conn, 7);
        let mut work = move || drop(name_of(&mut conn, 1));
        let (_, report) = Scope::new(&watch, "GET /")
            .run(async {
                match spawner {
                    "tokio::spawn" => tokio::spawn(async move { work() }).await.unwrap(),
                    "std::thread::spawn" => std::thread::spawn(work).join().unwrap(),
                    "rayon" => pool.install(work),
                    _ => tokio::task::spawn_blocking(work).await.unwrap(),
                }
            })
            .await;
        assert_eq!((report.statements, report.unscoped, watch.totals().unscoped), (0, 1, 2));
        for message in [failure(|| report.assert_budget(5)), failure(|| report.assert_no_unscoped())] {
            assert!(message.contains("\n  1 statements ran outside of every scope"), "{message}");
            let line =
                format!("1 × SELECT `items`.`name` FROM `items` WHERE (`items`.`id` = ?) LIMIT ? in {spawner} at ");
            assert!(message.contains(&line) && message.contains("fixture.rs"), "{message}");
        }
    }
}

#[test]
fn a_statement_of_the_test_itself_has_no_spawner() {
    let watch = Watch::builder().capture_locations(true).build();
    name_of(&mut sqlite(&watch), 1);
    let [statement] = &watch.unscoped_statements()[..] else { panic!("{:?}", watch.unscoped_statements()) };
    assert_eq!((statement.spawned_by, statement.calls), (None, 1));
    assert!(statement.location.as_deref().unwrap().contains("fixture.rs"), "{statement:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_tasks_and_threads_lose_nothing() {
    let watch = Watch::builder().build();
    let _guard = watch.fail_on_unscoped();
    let (mut one, mut other) = (sqlite(&watch), sqlite(&watch));
    let scope = Scope::new(&watch, "GET /").run(async {
        tokio::spawn(in_current_scope(async move { name_of(&mut one, 1) })).await.unwrap();
        tokio::task::spawn_blocking(in_current_scope_sync(move || name_of(&mut other, 1))).await.unwrap();
    });
    let (_, report) = scope.await;
    report.assert_budget(2);
    report.assert_no_unscoped();
}

#[test]
#[should_panic(expected = "the watch lost statements\n  1 statements ran outside of every scope")]
fn a_guard_fails_for_unscoped_statements() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    name_of(&mut conn, 1);
    let _guard = watch.fail_on_unscoped();
    name_of(&mut conn, 1);
}
