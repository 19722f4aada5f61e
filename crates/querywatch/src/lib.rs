#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

// Each module imports only modules before it: events, location, log_limiter, routes, shape, value_counts; finding_log,
// slow_log, stats; registry; text_cache, unscoped; collector; scope_state, watch; context, report, snapshot, testing; call,
// record, scope, sqlcommenter, sqlx_layer; blocking, instrumentation.
#[cfg(feature = "diesel-async")]
mod blocking;
#[cfg(feature = "diesel")]
mod call;
mod collector;
mod context;
mod events;
mod finding_log;
#[cfg(feature = "diesel")]
mod instrumentation;
mod location;
mod log_limiter;
mod record;
mod registry;
mod report;
mod round_trips;
mod routes;
mod scope;
mod scope_state;
mod shape;
mod slow_log;
mod snapshot;
mod sqlcommenter;
#[cfg(feature = "sqlx")]
mod sqlx_layer;
mod stats;
mod testing;
mod text_cache;
mod unscoped;
mod value_counts;
mod watch;

#[cfg(feature = "diesel-async")]
pub use blocking::BlockingInScope;
#[cfg(feature = "diesel")]
pub use call::time_call;
pub use events::{Finding, FindingKind, Outcome, Sink, SlowStatement, Statement};
#[cfg(feature = "diesel")]
pub use instrumentation::ConnectionInstrumentation;
pub use report::Report;
pub use round_trips::{RoundTripCall, RoundTrips};
pub use scope::{
    Scope, allow_repeats, allow_repeats_sync, in_current_scope, in_current_scope_sync, set_budget, set_route,
    statement_count,
};
pub use scope_state::ShapeCalls;
pub use shape::Dialect;
pub use snapshot::{RouteCalls, ShapeDetail, ShapeSnapshot, Totals};
pub use sqlcommenter::sql_comment;
pub use stats::{Point, Stats};
pub use testing::TestGuard;
pub use unscoped::UnscopedStatement;
pub use watch::{Watch, WatchBuilder};
