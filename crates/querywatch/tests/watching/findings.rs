//! Findings and their receivers.

use std::sync::{Arc, Mutex};

use diesel::prelude::*;
use querywatch::{Finding, FindingKind, Scope, Sink, SlowStatement, Watch};

use crate::fixture::{items, logged, name_of, sqlite};

/// Loads rows one by one.
fn n_plus_one(conn: &mut SqliteConnection, times: i32) {
    for id in 0..times {
        name_of(conn, id);
    }
}

#[test]
fn repetitions_above_the_limit_are_n_plus_one() {
    let watch = Watch::builder().repeat_limit(5).build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| n_plus_one(&mut conn, 5));
    assert!(report.findings.is_empty() && watch.findings().is_empty());

    let (_, report) = Scope::new(&watch, "GET /").request_id("r-9").run_sync(|| n_plus_one(&mut conn, 9));
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((finding.kind, finding.calls, finding.limit), (FindingKind::NPlusOne, 9, 5));
    assert_eq!(finding.sql.as_deref(), Some("SELECT `items`.`name` FROM `items` WHERE (`items`.`id` = ?) LIMIT ?"));
    assert_eq!((finding.route.as_deref(), finding.request_id.as_deref()), (Some("GET /"), Some("r-9")));
    assert_eq!(watch.findings()[..], report.findings[..]);
}

#[test]
fn a_finding_contains_source_lines() {
    let watch = Watch::builder().capture_locations(true).build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| {
        n_plus_one(&mut conn, 6);
        let last = items::table.find(7).select(items::name).first::<String>(&mut conn);
        assert!(last.is_err());
    });
    let (first, last) = (report.findings[0].first_call.as_deref(), report.findings[0].last_call.as_deref());
    // The helper of the fixture statement_count the first, this test the last.
    assert!(first.unwrap().contains("name_of") && first.unwrap().contains("fixture.rs:"), "{first:?}");
    assert!(last.unwrap().contains("findings.rs"), "{last:?}");

    let watch = Watch::builder().capture_locations(false).build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| n_plus_one(&mut conn, 6));
    assert_eq!((&report.findings[0].first_call, &report.findings[0].last_call), (&None, &None));
}

#[test]
fn repetitions_with_the_same_parameters_are_a_finding_of_their_own() {
    let watch = Watch::builder().compare_parameters(true).build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| (0..9).for_each(|_| drop(name_of(&mut conn, 1))));
    assert_eq!(report.findings[0].kind, FindingKind::RepeatedQuery);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| n_plus_one(&mut conn, 9));
    assert_eq!(report.findings[0].kind, FindingKind::NPlusOne);

    // Without the comparison both count as N+1.
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| (0..9).for_each(|_| drop(name_of(&mut conn, 1))));
    assert_eq!(report.findings[0].kind, FindingKind::NPlusOne);
}

#[test]
fn texts_without_parameters_are_compared() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let mut run = |sql: &dyn Fn(i32) -> String| {
        let run_all = || (0..9).for_each(|n| assert!(diesel::sql_query(sql(n)).execute(&mut conn).is_ok()));
        Scope::new(&watch, "GET /").run_sync(run_all).1.findings[0].kind
    };
    assert_eq!(run(&|_| "SELECT count(*) FROM items".to_owned()), FindingKind::RepeatedQuery);
    assert_eq!(run(&|n| format!("SELECT name FROM items WHERE id = {n}")), FindingKind::NPlusOne);
}

#[test]
fn equal_findings_are_merged_and_logged_once() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let logged = logged(|| {
        for route in ["GET /a", "GET /b", "GET /a", "GET /a"] {
            Scope::new(&watch, route).budget(1).run_sync(|| n_plus_one(&mut conn, 7));
        }
    });
    let findings = watch.findings();
    let mut scopes: Vec<_> =
        findings.iter().map(|finding| (finding.kind, finding.route.as_deref(), finding.scopes)).collect();
    scopes.sort_by_key(|(kind, route, _)| (*route, *kind != FindingKind::NPlusOne));
    assert_eq!(
        scopes,
        [
            (FindingKind::NPlusOne, Some("GET /a"), 3),
            (FindingKind::BudgetExceeded, Some("GET /a"), 3),
            (FindingKind::NPlusOne, Some("GET /b"), 1),
            (FindingKind::BudgetExceeded, Some("GET /b"), 1),
        ]
    );
    assert_eq!(watch.totals().findings, 8);
    assert_eq!(logged.len(), 4);
    assert_eq!(logged[0]["level"], "WARN");
    assert_eq!(
        (&logged[0]["kind"], &logged[0]["route"], &logged[0]["calls"]),
        (&"n_plus_one".into(), &"GET /a".into(), &7.into())
    );
    assert_eq!((&logged[1]["kind"], &logged[1]["limit"]), (&"budget_exceeded".into(), &1.into()));
}

#[test]
fn sinks_receive_slow_statements_and_findings() {
    #[derive(Clone, Default)]
    struct Recorder(Arc<Mutex<Vec<String>>>);
    impl Sink for Recorder {
        fn on_slow_statement(&self, statement: &SlowStatement) {
            self.0.lock().unwrap().push(format!("slow {}", statement.sql));
        }

        fn on_finding(&self, finding: &Finding) {
            self.0.lock().unwrap().push(finding.to_string());
        }
    }
    let recorder = Recorder::default();
    let watch = Watch::builder()
        .slow_threshold(std::time::Duration::ZERO)
        .capture_locations(false)
        .sink(recorder.clone())
        .build();
    let mut conn = sqlite(&watch);
    Scope::new(&watch, "GET /").budget(0).run_sync(|| diesel::sql_query("SELECT 1").execute(&mut conn).unwrap());
    assert_eq!(recorder.0.lock().unwrap()[0], "slow SELECT ?");
    let budget = &recorder.0.lock().unwrap()[1];
    assert!(budget.starts_with("budget exceeded: 1 statements, at most 0 allowed in GET / at "), "{budget}");
}

#[test]
#[should_panic(expected = "the watch has findings:\n  N+1: 6 times, at most 5 allowed in GET /: SELECT")]
fn a_guard_fails_the_test() {
    let watch = Watch::builder().build();
    let _guard = watch.fail_on_findings();
    let mut conn = sqlite(&watch);
    Scope::new(&watch, "GET /").run_sync(|| n_plus_one(&mut conn, 6));
}

#[test]
fn a_guard_without_findings_passes() {
    let watch = Watch::builder().build();
    let _guard = watch.fail_on_findings();
    Scope::new(&watch, "GET /").run_sync(|| n_plus_one(&mut sqlite(&watch), 5));
}

#[tokio::test]
async fn a_budget_that_holds_returns_the_output() {
    let mut conn = sqlite(&Watch::builder().build());
    assert_eq!(querywatch::assert_budget!(1, async { name_of(&mut conn, 1) }).as_deref(), Some("one"));
}

#[tokio::test]
#[should_panic(expected = "3 statements, at most 2 allowed\n  3 × SELECT `items`.`name`")]
async fn a_budget_that_does_not_hold_fails_the_test() {
    let mut conn = sqlite(&Watch::builder().build());
    querywatch::assert_budget!(2, async { n_plus_one(&mut conn, 3) });
}

#[tokio::test]
#[should_panic(expected = "N+1: 9 times, at most 5 allowed: SELECT")]
async fn a_budget_that_holds_still_fails_for_n_plus_one() {
    let mut conn = sqlite(&Watch::builder().build());
    querywatch::assert_budget!(100, async { n_plus_one(&mut conn, 9) });
}
