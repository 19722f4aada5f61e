#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

// Imports point upward in this list: shape, value_counts; stats, log_limiter, routes; registry; events; finding_log, slow_log;
// collector; location; scope_state; context; report, watch; scope, snapshot, sqlcommenter, testing, call; instrumentation.
mod call;
mod collector;
mod context;
mod events;
mod finding_log;
mod instrumentation;
mod location;
mod log_limiter;
mod registry;
mod report;
mod routes;
mod scope;
mod scope_state;
mod shape;
mod slow_log;
mod snapshot;
mod sqlcommenter;
mod stats;
mod testing;
mod value_counts;
mod watch;

pub use call::time_call;
pub use events::{Finding, FindingKind, Outcome, Sink, SlowStatement, Statement};
pub use instrumentation::ConnectionInstrumentation;
pub use report::Report;
pub use scope::{
    Scope, allow_repeats, allow_repeats_sync, in_current_scope, in_current_scope_sync, set_budget, set_route,
    statement_count,
};
pub use scope_state::ShapeCalls;
pub use snapshot::{RouteCalls, ShapeDetail, ShapeSnapshot, Totals};
pub use sqlcommenter::sql_comment;
pub use stats::{Point, Stats};
pub use testing::TestGuard;
pub use watch::{Watch, WatchBuilder};
