//! Tests with real connections to SQLite and PostgreSQL.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod fixture;

mod calls;
mod concurrency;
mod false_alarms;
mod findings;
mod postgres;
mod scopes;
mod slow;
mod sqlite;
mod unscoped;
mod wrapper;
