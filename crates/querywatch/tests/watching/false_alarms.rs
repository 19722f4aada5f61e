//! The false alarms of the README and their remedies.

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use querywatch::{FindingKind, Scope, Watch, allow_repeats, allow_repeats_sync};

use crate::fixture::{items, name_of, sqlite};

fn insert_in_batches(conn: &mut SqliteConnection) {
    for batch in 0..8 {
        let rows: Vec<_> = (0..3).map(|n| (items::id.eq(100 + batch * 3 + n), items::name.eq("x"))).collect();
        diesel::insert_into(items::table).values(rows).execute(conn).unwrap();
    }
}

#[test]
fn batches_that_are_bounded_by_a_constant() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let (_, report) =
        Scope::new(&watch, "POST /").budget(8).run_sync(|| allow_repeats_sync(|| insert_in_batches(&mut conn)));
    assert_eq!((report.statements, report.findings.len()), (8, 0));
    // Later statements are evaluated.
    let (_, report) = Scope::new(&watch, "POST /").budget(8).run_sync(|| {
        allow_repeats_sync(|| name_of(&mut conn, 1));
        (0..8).for_each(|id| drop(name_of(&mut conn, id)));
    });
    let kinds: Vec<_> = report.findings.iter().map(|finding| (finding.kind, finding.calls)).collect();
    assert_eq!(kinds, [(FindingKind::NPlusOne, 8), (FindingKind::BudgetExceeded, 9)]);
}

#[tokio::test]
async fn batches_in_a_future() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let batches = async { allow_repeats(async { insert_in_batches(&mut conn) }).await };
    assert!(Scope::new(&watch, "POST /").run(batches).await.1.findings.is_empty());
    // Outside of every scope it has no effect.
    allow_repeats(async { name_of(&mut conn, 1) }).await;
    allow_repeats_sync(|| name_of(&mut conn, 1));
}

#[test]
fn a_statement_that_may_be_repeated_anywhere() {
    let watch = Watch::builder().allow_repeats_of("FROM `items`").build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| (0..9).for_each(|id| drop(name_of(&mut conn, id))));
    assert_eq!((report.statements, report.findings.len()), (9, 0));
}

#[test]
fn transactions() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| {
        (0..9).for_each(|_| conn.transaction(|_| Ok::<_, diesel::result::Error>(())).unwrap());
    });
    assert_eq!((report.statements, report.findings.len()), (18, 0));
}

#[test]
fn a_scope_for_each_round() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    for _ in 0..9 {
        Scope::new(&watch, "job").run_sync(|| name_of(&mut conn, 1));
    }
    assert!(watch.findings().is_empty());
}

#[tokio::test]
async fn a_test_that_sends_several_requests() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    querywatch::assert_budget!(9, async {
        for _ in 0..9 {
            Scope::new(&watch, "GET /").run_sync(|| name_of(&mut conn, 1));
        }
    });
}

#[test]
fn a_few_kinds() {
    let watch = Watch::builder().repeat_limit(8).build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "GET /").run_sync(|| {
        for kind in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            conn.batch_execute(&format!("SELECT count(*) FROM items WHERE name = '{kind}'")).unwrap();
        }
    });
    assert_eq!((report.shapes().len(), report.findings.len()), (1, 0));
}

#[test]
fn a_scope_for_each_attempt() {
    let watch = Watch::builder().build();
    let mut conn = sqlite(&watch);
    let (_, report) = Scope::new(&watch, "POST /").run_sync(|| {
        for _ in 0..9 {
            Scope::new(&watch, "POST / (attempt)").run_sync(|| name_of(&mut conn, 1));
        }
    });
    assert_eq!((report.statements, report.findings.len()), (9, 0));
}
