//! The log of slow statements beside the filters of other layers.

use std::sync::Mutex;
use std::time::Duration;

use querywatch::Watch;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

static LOGGED: Mutex<Vec<&str>> = Mutex::new(Vec::new());

/// Stores the targets of events.
struct Targets;

impl<S: Subscriber> tracing_subscriber::Layer<S> for Targets {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        LOGGED.lock().unwrap().push(event.metadata().target());
    }
}

#[tokio::test]
async fn slow_statements_are_logged_and_filters_remain() {
    let watch = Watch::builder().slow_threshold(Duration::ZERO).build();
    tracing_subscriber::registry().with(Targets.with_filter(LevelFilter::INFO)).with(watch.sqlx_layer()).init();
    let pool = sqlx::SqlitePool::connect("sqlite::memory:").await.unwrap();
    sqlx::query("SELECT 1 AS one WHERE 2 = 2").execute(&pool).await.unwrap();
    assert!(watch.slow_statements().iter().any(|slow| slow.sql == "SELECT ? AS one WHERE ? = ?"));
    let logged = LOGGED.lock().unwrap();
    assert!(!logged.is_empty() && logged.iter().all(|target| *target == "querywatch"), "{logged:?}");
}
