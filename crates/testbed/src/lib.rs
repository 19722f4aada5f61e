//! Temporary servers for tests: PostgreSQL, Redis, nginx, a fake model, a mail server, and a browser.
//!
//! PostgreSQL, Redis, nginx and the browser are the real programs. Each runs on a free port in a temporary directory,
//! and ends with the process that started it, even if that process is killed.
#![forbid(unsafe_code)]

pub mod browser;
pub mod endpoints;
pub mod model;
pub mod nginx;
pub mod postgres;
pub mod postgres_proxy;
mod process;
pub mod redis;
mod redis_sentinel;
pub mod smtp;
#[cfg(feature = "webdriver")]
pub mod webdriver;

pub use browser::Chromedriver;
pub use endpoints::Endpoint;
pub use model::FakeModel;
pub use nginx::Nginx;
pub use postgres::Postgres;
pub use postgres_proxy::PostgresProxy;
pub use redis::{Redis, RedisCluster};
pub use redis_sentinel::RedisSentinel;
pub use smtp::SmtpSink;
#[cfg(feature = "webdriver")]
pub use webdriver::Browser;

/// Returns the Debian packages of the programs that are not installed.
pub fn missing_packages() -> Vec<&'static str> {
    let programs = [
        (postgres::program("initdb"), "postgresql"),
        (redis::program(), "redis-server"),
        (nginx::program(), "nginx-light"),
        (browser::chromium(), "chromium"),
        (browser::program(), "chromium-driver"),
    ];
    programs.into_iter().filter(|(program, _)| program.is_err()).map(|(_, package)| package).collect()
}
