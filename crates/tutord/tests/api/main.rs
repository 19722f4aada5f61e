//! The HTTP contract, against a server in this process, on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

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
mod demo;
mod edge;
mod exercise_requests;
mod exercises;
mod generators;
mod harness;
mod health;
mod identity;
mod llm_cache;
mod llm_endpoints;
mod mail_queue;
mod mails;
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
mod statements;
mod stream;
mod users;

/// Makes of each `async fn case(app: &TestApp)` one test on SQLite and one on PostgreSQL. A list of
/// arguments after a case is given to the server.
macro_rules! on_both {
    ($($case:ident $(($($argument:expr),*))?),+ $(,)?) => {
        $(mod $case {
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                super::$case(&crate::harness::TestApp::sqlite(&[$($($argument),*)?]).await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                super::$case(&crate::harness::TestApp::postgres(&[$($($argument),*)?]).await).await;
            }
        })+
    };
}
pub(crate) use on_both;
