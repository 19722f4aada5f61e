//! A response, and what tests assert about it.

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::Value;

/// A response whose body was read: as JSON, or else as a string.
#[derive(Debug)]
pub(crate) struct TestResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

/// Sends a request and reads the response.
pub(crate) async fn fetch(request: RequestBuilder) -> TestResponse {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    TestResponse { status, headers, body }
}

impl TestResponse {
    #[track_caller]
    pub(crate) fn assert_status(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:#}", self.body);
        self
    }

    #[track_caller]
    pub(crate) fn assert_ok(self) -> Self {
        self.assert_status(200)
    }

    /// Asserts that the response is an error of the contract's shape; returns its message.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) -> &str {
        let error = &self.body["error"];
        assert_eq!((self.status.as_u16(), error["code"].as_str()), (status, Some(code)), "{:#}", self.body);
        assert_eq!(self.body.as_object().unwrap().len(), 1, "nothing but `error`");
        error["message"].as_str().expect("a message")
    }

    /// Asserts that the server rejected this field; returns the error's message.
    #[track_caller]
    pub(crate) fn assert_invalid_field(&self, field: &str) -> &str {
        let message = self.assert_error(422, "VALIDATION_ERROR");
        assert_eq!(self.body["error"]["details"]["field"], field, "{:#}", self.body);
        message
    }

    /// Returns the body of a response that is not JSON.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        self.body.as_str().unwrap()
    }

    /// Asserts that the body is an HTML page; returns it.
    #[track_caller]
    pub(crate) fn assert_html(&self) -> &str {
        assert_eq!(self.headers["content-type"], "text/html; charset=utf-8");
        let text = self.text();
        assert!(text.starts_with("<!DOCTYPE html><html lang=\"en\">"), "{text}");
        text
    }

    /// Asserts that the body is an HTML page that contains each of these parts.
    #[track_caller]
    pub(crate) fn assert_page_contains(&self, parts: &[&str]) {
        let text = self.assert_html();
        for part in parts {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    /// Returns the number of statements that the request issued.
    #[track_caller]
    pub(crate) fn statement_count(&self) -> u32 {
        self.server_timing("db_queries")
    }

    /// Returns the number of the request's round trips to the database that follow one another, and of all.
    #[track_caller]
    pub(crate) fn round_trips(&self) -> [u32; 2] {
        ["db_sequential", "db_round_trips"].map(|name| self.server_timing(name))
    }

    #[track_caller]
    fn server_timing(&self, name: &str) -> u32 {
        let timing = self.headers["server-timing"].to_str().unwrap();
        let (_, value) = timing.split_once(&format!("{name};desc=\"")).unwrap();
        value.split('"').next().unwrap().parse().unwrap()
    }

    /// Returns the value of a cookie that the response sets.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        self.set_cookies().into_iter().find_map(|line| {
            let (key, rest) = line.split_once('=')?;
            (key == name).then(|| rest.split(';').next().unwrap_or_default().to_owned())
        })
    }

    /// Returns the values of the `Set-Cookie` headers.
    pub(crate) fn set_cookies(&self) -> Vec<String> {
        self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }
}
