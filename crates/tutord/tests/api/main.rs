//! The HTTP contract, against a server in this process, on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alerts;
mod auth;
mod authorization;
mod chat;
mod coherence;
mod configuration;
mod connections;
mod contract;
mod cookies;
mod dashboard;
mod edge;
mod exercise_model;
mod exercise_requests;
mod exercises;
mod generators;
mod health;
mod identity;
mod llm_cache;
mod llm_endpoints;
mod mail_queue;
#[cfg(feature = "otlp")]
mod otlp;
mod outbox;
mod overload;
mod process;
mod progress;
mod proxies;
mod queries;
mod rate_limits;
mod replicas;
mod session_cache;
mod statements;
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod users;

/// Declares two tests for each `async fn case(app: &TestApp)`: one on SQLite and one on PostgreSQL. The options of the
/// server follow the case in parentheses: `case(without_cache().trusted_proxies("127.0.0.1"))`.
macro_rules! on_both {
    ($($case:ident $(($($option:ident($($value:expr),*)).+))?),+ $(,)?) => {
        $(mod $case {
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                let app = crate::support::TestApp::sqlite()$($(.$option($($value),*))+)?.start().await;
                super::$case(&app).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                let app = crate::support::TestApp::postgres()$($(.$option($($value),*))+)?.start().await;
                super::$case(&app).await;
            }
        })+
    };
}
pub(crate) use on_both;
