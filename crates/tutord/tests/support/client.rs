//! A user who calls the API with an access token.

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::{TestApp, TestResponse, fetch};

/// A user with an access token.
#[derive(Clone)]
pub(crate) struct TestClient<'a> {
    pub(crate) app: &'a TestApp,
    pub(crate) user_id: i64,
    pub(crate) token: String,
}

impl TestClient<'_> {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.app.request(method, path).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> TestResponse {
        fetch(self.request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> TestResponse {
        fetch(self.request(Method::POST, path).json(&body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> TestResponse {
        fetch(self.request(Method::PUT, path).json(&body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> TestResponse {
        fetch(self.request(Method::PATCH, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> TestResponse {
        fetch(self.request(Method::DELETE, path)).await
    }

    /// Returns the same user as a client of another server.
    pub(crate) fn on_node<'a>(&self, app: &'a TestApp) -> TestClient<'a> {
        TestClient { app, user_id: self.user_id, token: self.token.clone() }
    }
}
