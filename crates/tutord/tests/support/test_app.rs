//! A server of the test's own. Only this file and the builder access the inside of the application.

use std::sync::Arc;

use axum::Router;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use querywatch::Watch;
use readthrough::Cache;
use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use testbed::{FakeModel, Redis};
use tutord::config::Config;
use tutord::state::AppState;
use tutord::telemetry::plans::Plans;
use tutord_core::{Operations, Store};

use super::builder::{Database, TestAppBuilder};
use super::{TestResponse, database, fetch};

/// A server with a fake model and statement counts. Rate limits and load shedding are disabled unless a test enables
/// them.
pub(crate) struct TestApp {
    pub(super) app: AppState,
    pub(crate) model: FakeModel,
    pub(crate) base_url: String,
    pub(crate) directory: tempfile::TempDir,
    pub(super) client: reqwest::Client,
    /// Fails the test when a request repeats a statement or exceeds its route's budget.
    pub(super) _guard: querywatch::TestGuard,
    /// The Redis that the server started for itself.
    pub(super) _redis: Option<Redis>,
}

impl TestApp {
    /// Returns the builder of a server on a new SQLite database.
    pub(crate) fn sqlite() -> TestAppBuilder {
        TestAppBuilder::new(Database::Sqlite)
    }

    /// Returns the builder of a server on a new PostgreSQL database, with a Redis of its own.
    pub(crate) fn postgres() -> TestAppBuilder {
        TestAppBuilder::new(Database::Postgres)
    }

    /// Returns the builder of a server on this database.
    pub(crate) fn on_database(url: &str) -> TestAppBuilder {
        TestAppBuilder::new(Database::Url(url.to_owned()))
    }

    /// Returns the builder of another server on the same database.
    pub(crate) fn sibling(&self) -> TestAppBuilder {
        Self::on_database(&self.database_url())
    }

    /// Starts two servers on one PostgreSQL and one Redis, and a third on the same PostgreSQL without a cache.
    pub(crate) async fn two_cached_nodes_and_one_uncached(redis: &Redis) -> [Self; 3] {
        let [first, second] = Self::postgres().redis(redis).start_two().await;
        let uncached = first.sibling().without_cache().start().await;
        [first, second, uncached]
    }

    pub(crate) fn config(&self) -> &Config {
        &self.app.config
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.app.store
    }

    pub(crate) fn operations(&self) -> &Arc<dyn Operations> {
        &self.app.operations
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.app.cache
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.app.http.watch
    }

    pub(crate) fn plans(&self) -> &Plans {
        &self.app.plans
    }

    pub(crate) fn router(&self) -> Router {
        tutord::router::router(&self.app, Router::new())
    }

    pub(crate) async fn hash_password(&self, password: &str) -> String {
        self.app.auth.passwords.hash(password.to_owned()).await.unwrap()
    }

    /// Returns how many requests failed with a server error.
    pub(crate) fn failed_requests(&self) -> u64 {
        self.app.http.requests.failed()
    }

    /// Returns how many requests the admission control rejected.
    pub(crate) fn shed_requests(&self) -> u64 {
        self.app.http.admission.shed().map(|(.., count)| count).sum()
    }

    /// Starts the shutdown of the server.
    pub(crate) fn shut_down(&self) {
        self.app.background.shutdown.cancel();
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.operations().backend() == "sqlite"
    }

    /// Returns `true` if the client accepts compressed responses, as browsers do: on PostgreSQL.
    pub(crate) fn accepts_compressed_responses(&self) -> bool {
        !self.is_sqlite()
    }

    pub(crate) fn database_url(&self) -> String {
        self.config().database.url()
    }

    /// Returns the name of the PostgreSQL database.
    pub(crate) fn database_name(&self) -> String {
        database::name(&self.database_url()).to_owned()
    }

    /// Executes a statement past the store.
    pub(crate) async fn execute_sql(&self, sql: &str) {
        database::execute(&self.database_url(), sql).await;
    }

    /// Returns the number that a query returns, past the store.
    pub(crate) async fn query_count(&self, sql: &str) -> i64 {
        database::query_count(&self.database_url(), sql).await
    }

    /// Issues a statement that this server's watch observes and that takes longer than a millisecond on any machine.
    pub(crate) fn issue_slow_statement(&self) {
        let mut connection = SqliteConnection::establish(":memory:").unwrap();
        connection.set_instrumentation(self.watch().instrumentation());
        let count =
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT count(*) FROM n";
        diesel::sql_query(count).execute(&mut connection).unwrap();
    }

    /// Returns a request without authentication.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base_url))
    }

    pub(crate) async fn get(&self, path: &str) -> TestResponse {
        fetch(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> TestResponse {
        fetch(self.request(Method::POST, path).json(&body)).await
    }
}
