//! One suite for both adapters: what the [`Store`](tutord_core::Store) trait promises.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod administration;
mod batches;
mod conversations;
mod email_tokens;
mod exercises;
mod fixture;
mod messages;
mod outbox;
mod pool;
mod progress;
mod query_plans;
mod refusals;
mod replicas;
mod seed;
mod sessions;
mod statement_counts;
mod users;

/// Makes of each `async fn case(store: &Fixture)` one test on SQLite and one on PostgreSQL.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() {
                super::$case(&crate::fixture::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                super::$case(&crate::fixture::postgres().await).await;
            }
        })+
    };
}
pub(crate) use on_both;
