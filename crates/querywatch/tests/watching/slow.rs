//! Slow statements.

use std::time::Duration;

use diesel::prelude::*;
use querywatch::{Outcome, Scope, Watch};

use crate::fixture::{logged, name_of, shape, sqlite};

/// One step of the recursion takes about 0.1 µs, so the statement takes milliseconds.
const LONG: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT max(i) FROM n";

#[test]
fn a_slow_statement_is_logged_and_stored() {
    let watch = Watch::builder().slow_threshold(Duration::from_millis(1)).build();
    let mut conn = sqlite(&watch);
    let logged = logged(|| {
        Scope::new(&watch, "GET /slow")
            .request_id("r-1")
            .run_sync(|| diesel::sql_query(LONG).execute(&mut conn).unwrap());
    });
    let [slow] = &watch.slow_statements()[..] else { panic!("{:?}", watch.slow_statements()) };
    assert_eq!((slow.route.as_deref(), slow.request_id.as_deref()), (Some("GET /slow"), Some("r-1")));
    assert_eq!((slow.outcome, slow.threshold_us), (Outcome::Finished, 1_000));
    assert!(slow.duration_us >= 1_000 && slow.sql.starts_with("WITH RECURSIVE n(i) AS (SELECT ? UNION"), "{slow:?}");
    assert_eq!((watch.totals().slow, shape(&watch, "WITH").slow), (1, 1));

    let [line] = &logged[..] else { panic!("{logged:?}") };
    assert_eq!((&line["level"], &line["message"]), (&"WARN".into(), &"slow statement".into()));
    assert_eq!((&line["sql"], &line["shape"]), (&slow.sql.as_str().into(), &slow.shape.as_str().into()));
    assert_eq!((&line["route"], &line["request_id"]), (&"GET /slow".into(), &"r-1".into()));
    assert_eq!((&line["duration_ms"], &line["threshold_ms"]), (&(slow.duration_us / 1_000).into(), &1.into()));
    assert_eq!(line["suppressed"], 0);
}

#[test]
fn the_log_is_rate_limited_and_the_ring_is_bounded() {
    let watch = Watch::builder().slow_threshold(Duration::ZERO).max_slow_statements(3).build();
    let mut conn = sqlite(&watch);
    let logged = logged(|| {
        (0..10).for_each(|id| drop(name_of(&mut conn, id)));
        diesel::sql_query(format!("SELECT 'é{}' AS {}", "x".repeat(300), "c".repeat(300))).execute(&mut conn).unwrap();
    });
    assert_eq!((logged.len(), watch.totals().slow, watch.slow_statements().len()), (2, 11, 3));
    assert_eq!(watch.slow_statements()[0].sql, format!("SELECT ? AS {}", "c".repeat(188)));
    assert!(watch.slow_statements()[2].sql.starts_with("SELECT `items`"));
}

#[test]
fn a_fast_statement_is_not_slow() {
    let watch = Watch::builder().slow_threshold(Duration::from_secs(60)).build();
    name_of(&mut sqlite(&watch), 1);
    assert!(watch.slow_statements().is_empty());
}
