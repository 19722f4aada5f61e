#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod call;
mod comment;
mod events;
mod findings;
mod limiter;
mod location;
mod packed;
mod probe;
mod registry;
mod report;
mod routes;
mod scope;
mod shape;
mod slow;
mod snapshot;
mod stats;
mod testing;
mod watch;

pub use call::call;
pub use comment::comment;
pub use events::{Finding, FindingKind, Outcome, Sink, SlowStatement, Statement};
pub use probe::Probe;
pub use report::{Report, ShapeCalls};
pub use scope::{Scope, allow_repeats, allow_repeats_sync, carry, carry_sync, issued, set_budget, set_route};
pub use snapshot::{RouteCalls, ShapeDetail, ShapeSnapshot, Totals};
pub use stats::{Point, Stats};
pub use testing::TestGuard;
pub use watch::{Watch, WatchBuilder};
