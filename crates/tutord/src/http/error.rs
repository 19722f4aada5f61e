//! The error type of the HTTP layer: `{"error": {"code", "message", "details"}}` with its status.

use std::fmt::Display;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::http::bounded::Bounded;
use crate::http::request_id;

/// An error response. Contains no internals; these go to the log.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The `Retry-After` of an overloaded server.
const OVERLOADED_RETRY: Duration = Duration::from_secs(1);
/// The `Retry-After` of a failed model whose endpoint sent none.
const MODEL_RETRY: Duration = Duration::from_secs(10);

/// The maximum length of a message in bytes; longer messages are truncated.
const MESSAGE_BYTES: usize = 500;
/// The maximum number of characters of a field name, which clients can choose freely.
const FIELD_CHARS: usize = 100;

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        // The message can repeat the input, which can be long.
        let message = if message.len() > MESSAGE_BYTES { Bounded(message).to_string() } else { message };
        Self { status, code, message, details: Map::new(), headers: Vec::new() }
    }

    /// Creates a 422: `field` is invalid; the message names the field and its limit.
    pub fn validation(field: &str, message: impl Into<String>) -> Self {
        let field = field.char_indices().nth(FIELD_CHARS).map_or(field, |(end, _)| &field[..end]);
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR", message).with_detail("field", field)
    }

    /// Creates a 400: the body is not JSON.
    pub fn malformed_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MALFORMED_JSON", message)
    }

    /// Creates a 401: the token is missing or unknown.
    pub fn unauthenticated() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "authentication is required")
    }

    /// Creates a 401, identical for an unknown address and a wrong password.
    pub fn wrong_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", "e-mail or password is wrong")
    }

    /// Creates a 401: the access token has expired.
    pub fn token_expired() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "TOKEN_EXPIRED", "the access token has expired")
    }

    /// Creates a 403: the route requires a verified address.
    pub fn email_not_verified() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "EMAIL_NOT_VERIFIED",
            "e-mail address not verified; open the link in the verification mail",
        )
    }

    /// Creates a 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    /// Creates a 403: a request with cookies lacks the CSRF token.
    pub fn csrf_failed() -> Self {
        Self::new(StatusCode::FORBIDDEN, "CSRF_FAILED", "the header X-CSRF-Token must equal the cookie csrf_token")
    }

    /// Creates a 404: `what` does not exist, or belongs to another user.
    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", format!("{what} not found"))
    }

    /// Creates a 405.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "method not allowed on this path")
    }

    /// Creates a 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "CONFLICT", message)
    }

    /// Creates a 413: the body is longer than `limit` bytes.
    pub fn payload_too_large(limit: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", format!("the body must be at most {limit} bytes"))
            .with_detail("limit", limit)
    }

    /// Creates a 414: path and query are longer than `limit` bytes.
    pub fn uri_too_long(limit: usize) -> Self {
        Self::new(StatusCode::URI_TOO_LONG, "URI_TOO_LONG", format!("path and query must be at most {limit} bytes"))
            .with_detail("limit", limit)
    }

    /// Creates a 431: the request has too many or too long headers.
    pub fn headers_too_large(most: usize, bytes: usize) -> Self {
        let message = format!("the request must have at most {most} headers with at most {bytes} bytes in total");
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "HEADERS_TOO_LARGE", message)
    }

    /// Creates a 415: the body is not `application/json`.
    pub fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "the body must be JSON with Content-Type: application/json",
        )
    }

    /// Creates a 408: the body did not arrive within `limit`.
    pub fn body_timeout(limit: Duration) -> Self {
        let message = format!("the body did not arrive within {limit:?}");
        Self::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", message)
    }

    /// Creates a 415: the body is compressed.
    pub fn unsupported_content_encoding() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "the body must not be compressed; send it without Content-Encoding",
        )
    }

    /// Creates a 400: the request head is invalid.
    pub fn malformed_head(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    /// Creates a 429: the `limit` of a window is exhausted.
    pub fn rate_limited(limit: u32, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_EXCEEDED", "too many requests; please wait");
        error
            .with_retry_after(retry_after)
            .with_header("x-ratelimit-limit", limit.into())
            .with_header("x-ratelimit-remaining", 0.into())
    }

    /// Creates a 501.
    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message)
    }

    /// Creates a 503: no model is configured.
    pub fn llm_not_configured() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            LLM_NOT_CONFIGURED,
            "no model is configured; the operator must set LLM_BASE_URL and LLM_MODEL",
        )
        .with_retry_after(MODEL_RETRY)
    }

    /// Creates a 503: the model gave no reply.
    pub fn llm_unavailable(message: &str, retry_after: Option<Duration>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "LLM_UNAVAILABLE", message)
            .with_retry_after(retry_after.unwrap_or(MODEL_RETRY))
    }

    /// Creates a 503: the model declines to answer, and a retry does not change that.
    pub fn llm_declined(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "LLM_UNAVAILABLE", message)
    }

    /// Creates a 503 that the client can retry soon.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", message).with_retry_after(OVERLOADED_RETRY)
    }

    /// Creates a 500: logs `cause`, and sends the client only the request id.
    pub fn internal(cause: &dyn Display) -> Self {
        tracing::error!(error = %Bounded(cause), "request failed");
        let error = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL_SERVER_ERROR",
            "internal server error; the log of the server holds the cause",
        );
        match request_id::current() {
            Some(id) => error.with_detail("request_id", id.as_ref()),
            None => error,
        }
    }

    /// Adds a detail.
    #[must_use]
    pub fn with_detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    fn with_header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    fn with_retry_after(self, after: Duration) -> Self {
        // Round up, so that a client that waits as told does not return too early.
        let seconds = after.as_millis().div_ceil(1000).max(1);
        self.with_header("retry-after", HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)))
    }

    /// Returns the machine-readable code.
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the human-readable message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the invalid field of a validation error.
    pub fn field(&self) -> Option<&str> {
        self.details.get("field").and_then(Value::as_str)
    }

    /// Returns `true` if the server failed, not the client.
    pub fn is_failure(&self) -> bool {
        is_failure(self.status) && self.code != LLM_NOT_CONFIGURED
    }

    /// Returns `true` if a log-in can solve the error (401).
    pub fn is_unauthenticated(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }
}

/// Returns `true` if a status means that the server failed. An unsupported feature (501) is not a failure.
pub(crate) fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// The code of requests that need a model when none is configured.
const LLM_NOT_CONFIGURED: &str = "LLM_NOT_CONFIGURED";

/// Marks a 5xx response for a feature that this installation does not offer, so no operator needs to act.
#[derive(Clone, Copy)]
struct NotOffered;

/// Returns `true` if a response means that the server failed.
pub(crate) fn reports_failure(response: &Response) -> bool {
    is_failure(response.status()) && response.extensions().get::<NotOffered>().is_none()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let is_offered = self.code != LLM_NOT_CONFIGURED;
        let mut error = json!({"code": self.code, "message": self.message});
        if !self.details.is_empty() {
            error["details"] = Value::Object(self.details);
        }
        let mut response = (self.status, Json(json!({ "error": error }))).into_response();
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        if !is_offered {
            response.extensions_mut().insert(NotOffered);
        }
        response
    }
}

impl From<tutord_core::Error> for ApiError {
    fn from(error: tutord_core::Error) -> Self {
        use tutord_core::Error;
        match error {
            // A defect of tutord is a 500. Failures that end by themselves or after an operator's action are not.
            Error::Overloaded
            | Error::Timeout
            | Error::Unavailable(_)
            | Error::Refused(..)
            | Error::Incompatible { .. } => {
                tracing::error!(error = %Bounded(&error), "the database did not serve a request");
                Self::overloaded("the database is temporarily unavailable; retry shortly")
            }
            Error::KeyReused => Self::validation(
                "idempotency_key",
                "idempotency_key was used for another request within the last 24 hours",
            ),
            other => Self::internal(&other),
        }
    }
}
