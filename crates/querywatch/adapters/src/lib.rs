//! Shared parts of the tests of querywatch with real drivers; see `tests` and `examples`.

use std::panic::AssertUnwindSafe;
use std::sync::LazyLock;

use querywatch::{FindingKind, Report, Watch};

/// Three rows.
pub const TABLE: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO items VALUES (1, 'one'), (2, 'two'), (3, 'three')";

/// A watch that records the statements of sqlx. Worker threads have no other subscriber than the global one.
pub static SQLX_WATCH: LazyLock<Watch> = LazyLock::new(|| {
    use tracing_subscriber::prelude::*;

    let watch = Watch::builder().build();
    tracing_subscriber::registry().with(watch.sqlx_layer()).init();
    watch
});

/// Asserts that a scope repeated one statement for nine rows and exceeds its budget.
#[track_caller]
pub fn assert_n_plus_one(report: &Report, sql: &str) {
    let [finding] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((finding.kind, finding.calls), (FindingKind::NPlusOne, 9));
    assert!(finding.sql.as_deref().is_some_and(|shape| shape.starts_with(sql)), "{finding:?}");
    let message = *std::panic::catch_unwind(AssertUnwindSafe(|| report.assert_budget(20)))
        .unwrap_err()
        .downcast::<String>()
        .unwrap();
    assert!(message.contains("N+1: 9 times") && message.contains("9 × SELECT"), "{message}");
}
