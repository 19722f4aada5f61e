//! Throwaway servers for tests: PostgreSQL, Redis and a fake model.
//!
//! Each is the real program, started on a free port in a temporary directory, and stopped when the
//! process that started it ends, however it ends.
#![forbid(unsafe_code)]

pub mod model;
pub mod postgres;
mod process;
pub mod redis;

pub use model::FakeModel;
pub use postgres::Postgres;
pub use redis::{Redis, RedisCluster};

/// The Debian packages of those servers that are not installed.
pub fn missing_packages() -> Vec<&'static str> {
    let programs = [(postgres::program("initdb"), "postgresql"), (redis::program(), "redis-server")];
    programs.into_iter().filter(|(program, _)| program.is_err()).map(|(_, package)| package).collect()
}
