//! The scopes of statements.

use diesel::prelude::*;
use querywatch::{FindingKind, Scope, Watch, in_current_scope_sync, set_budget, set_route, statement_count};

use crate::fixture::{name_of, shape, sqlite};

#[test]
fn a_scope_counts_and_times() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    assert_eq!(statement_count(), None);
    let (counted, report) = Scope::new(&watch, "GET /").run_sync(|| {
        name_of(&mut conn, 1);
        name_of(&mut conn, 2);
        statement_count()
    });
    assert_eq!((counted, report.statements), (Some(2), 2));
    assert!(!report.db_time.is_zero() && report.findings.is_empty());
    assert_eq!(report.shapes()[0].calls, 2);
    assert_eq!(report.shapes()[0].id, shape(&watch, "SELECT").id);
    name_of(&mut conn, 1);
    assert_eq!(report.statements, 2);
}

#[test]
fn a_handler_may_set_its_route_and_budget() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "?").budget(10).request_id("r-1").run_sync(|| {
        set_route("GET /items/{id}");
        set_budget(1);
        name_of(&mut conn, 1);
        name_of(&mut conn, 2);
    });
    let finding = &report.findings[0];
    assert_eq!((finding.kind, finding.calls, finding.limit), (FindingKind::BudgetExceeded, 2, 1));
    assert_eq!(finding.route.as_deref(), Some("GET /items/{id}"));
    assert_eq!(finding.request_id.as_deref(), Some("r-1"));
    assert!(finding.first_call.as_deref().unwrap().contains("scopes.rs"), "{finding:?}");
    assert_eq!(shape(&watch, "SELECT").routes[0].route, "GET /items/{id}");
    // Outside of every scope they have no effect.
    set_route("x");
    set_budget(0);
}

#[test]
fn an_inner_scope_counts_for_the_outer_scope() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let (inner, outer) = Scope::new(&watch, "test").run_sync(|| {
        name_of(&mut conn, 1);
        let (_, inner) = Scope::new(&watch, "GET /").budget(1).run_sync(|| {
            name_of(&mut conn, 1);
            name_of(&mut conn, 2);
        });
        inner
    });
    assert_eq!((inner.statements, outer.statements, outer.shapes()[0].calls), (2, 3, 3));
    assert_eq!((inner.findings.len(), outer.findings.len(), watch.findings().len()), (1, 1, 1));
    assert!(outer.db_time > inner.db_time);
}

#[test]
fn a_thread_can_run_in_the_current_scope() {
    let watch = Watch::builder().build();
    let (mut one, mut other) = (sqlite(&watch), sqlite(&watch));
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| {
        std::thread::spawn(in_current_scope_sync(move || name_of(&mut one, 1))).join().unwrap();
        std::thread::spawn(move || name_of(&mut other, 1)).join().unwrap();
    });
    assert_eq!(report.statements, 1);
    assert_eq!(shape(&watch, "SELECT").since_start.calls, 2);
}

#[test]
fn a_scope_that_panics_reports_its_findings() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let scope = Scope::new(&watch, "GET /").budget(0);
    let work = std::panic::AssertUnwindSafe(|| scope.run_sync(|| name_of(&mut conn, 1).filter(|_| panic!("no"))));
    assert!(std::panic::catch_unwind(work).is_err());
    assert_eq!(watch.findings()[0].kind, FindingKind::BudgetExceeded);
}

#[test]
fn two_watches_do_not_mix() {
    let (one, other) = (Watch::builder().build(), Watch::builder().build());
    let mut conn = sqlite(&one);
    let (_, report) = Scope::new(&other, "GET /other").run_sync(|| name_of(&mut conn, 1));
    // The scope counts the statement, but the first watch does not know its route.
    assert_eq!(report.statements, 1);
    assert!(shape(&one, "SELECT").routes.is_empty() && other.shapes().is_empty());
}

#[test]
fn statements_without_rows_are_recorded() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let rows = diesel::sql_query("DELETE FROM items").execute(&mut conn).unwrap();
    assert_eq!((rows, shape(&watch, "DELETE").since_start.calls), (3, 1));
}
