//! The unit tests of `tutord-db`. They lie next to the code that they test. This target compiles those modules alone,
//! because a test build of the whole library would compile the adapters again.

#[path = "../../src/explain.rs"]
mod explain;
#[path = "../../src/postgres/monitor.rs"]
mod monitor;
#[path = "../../src/postgres/overflow.rs"]
mod overflow;
#[path = "../../src/seed/mod.rs"]
#[expect(dead_code, unused_imports, reason = "only the adapters use the rows' other functions")]
mod seed;
