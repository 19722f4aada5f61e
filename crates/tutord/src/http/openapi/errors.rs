//! The error responses that many routes share.

use serde_json::{Map, Value, json};

/// An error response that many routes share.
pub(super) struct SharedError {
    pub(super) status: &'static str,
    /// The name in `components.responses`.
    pub(super) name: &'static str,
    description: &'static str,
    code: &'static str,
    message: &'static str,
    headers: &'static [&'static str],
}

impl SharedError {
    const fn new(status: &'static str, name: &'static str, code: &'static str, message: &'static str) -> Self {
        Self { status, name, description: "", code, message, headers: &[] }
    }

    const fn described(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    const fn with_headers(self, headers: &'static [&'static str]) -> Self {
        Self { headers, ..self }
    }

    /// Returns a reference to the response.
    pub(super) fn reference(&self) -> Value {
        json!({"$ref": format!("#/components/responses/{}", self.name)})
    }

    fn response(&self) -> Value {
        let mut response = json!({
            "description": self.description,
            "content": content(json!({"error": {"code": self.code, "message": self.message}})),
        });
        if !self.headers.is_empty() {
            let reference = |name: &&str| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")}));
            response["headers"] = self.headers.iter().map(reference).collect::<Map<_, _>>().into();
        }
        response
    }
}

/// Returns the content of an error response, with an example.
pub(super) fn content(example: Value) -> Value {
    let mut content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}});
    if !example.is_null() {
        content["application/json"]["example"] = example;
    }
    content
}

pub(super) const MALFORMED: SharedError =
    SharedError::new("400", "MalformedBody", "MALFORMED_JSON", "the body is not JSON: EOF while parsing an object")
        .described("The body is not JSON.");
pub(super) const UNAUTHENTICATED: SharedError =
    SharedError::new("401", "Unauthenticated", "UNAUTHENTICATED", "authentication is required").described(
        "The request has no token or an unknown one (`UNAUTHENTICATED`), or the token has expired (`TOKEN_EXPIRED`).",
    );
pub(super) const LOG_IN_FORBIDDEN: SharedError =
    SharedError::new("403", "Forbidden", "CSRF_FAILED", "the header X-CSRF-Token must equal the cookie csrf_token")
        .described(
            "The account is deactivated (`FORBIDDEN`), or a request with cookies lacks the CSRF token (`CSRF_FAILED`).",
        );
pub(super) const UNVERIFIED: SharedError = SharedError::new(
    "403",
    "EmailNotVerified",
    "EMAIL_NOT_VERIFIED",
    "e-mail address not verified; open the link in the verification mail",
)
.described(
    "The e-mail address is not verified (`EMAIL_NOT_VERIFIED`), the account is deactivated (`FORBIDDEN`), or a \
         request with cookies lacks the CSRF token (`CSRF_FAILED`).",
);
pub(super) const NOT_ADMIN: SharedError = SharedError::new("403", "NotAdmin", "FORBIDDEN", "only admins have access")
    .described(
        "The user is not an admin or is deactivated (`FORBIDDEN`), the e-mail address is not verified \
         (`EMAIL_NOT_VERIFIED`), or a request with cookies lacks the CSRF token (`CSRF_FAILED`).",
    );
pub(super) const NOT_FOUND: SharedError = SharedError::new("404", "NotFound", "NOT_FOUND", "conversation not found")
    .described("The resource does not exist, or belongs to another user.");
pub(super) const BODY_TIMEOUT: SharedError =
    SharedError::new("408", "BodyTimeout", "REQUEST_TIMEOUT", "the body did not arrive within 27s")
        .described("The body did not arrive in time.");
pub(super) const TOO_LARGE: SharedError =
    SharedError::new("413", "BodyTooLarge", "PAYLOAD_TOO_LARGE", "the body must be at most 1048576 bytes")
        .described("The body is longer than `MAX_BODY_BYTES`.");
pub(super) const URI_TOO_LONG: SharedError =
    SharedError::new("414", "UriTooLong", "URI_TOO_LONG", "path and query must be at most 8192 bytes")
        .described("Path and query together are too long; the message names the limit.");
pub(super) const UNSUPPORTED: SharedError = SharedError::new(
    "415",
    "UnsupportedMediaType",
    "UNSUPPORTED_MEDIA_TYPE",
    "the body must be JSON with Content-Type: application/json",
)
.described("The body is not `application/json`.");
pub(super) const INVALID: SharedError =
    SharedError::new("422", "Invalid", "VALIDATION_ERROR", "limit must be between 1 and 200")
        .described("A field or parameter is out of bounds; `details.field` names it.");
pub(super) const RATE_LIMITED: SharedError =
    SharedError::new("429", "RateLimited", "RATE_LIMIT_EXCEEDED", "too many requests; please wait")
        .described("A rate limit is exceeded.")
        .with_headers(&["Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining"]);
pub(super) const HEADERS_TOO_LARGE: SharedError = SharedError::new(
    "431",
    "HeadersTooLarge",
    "HEADERS_TOO_LARGE",
    "the request must have at most 96 headers with at most 32768 bytes in total",
)
.described("The request has too many or too long headers; the message names both limits.");
pub(super) const INTERNAL: SharedError = SharedError::new(
    "500",
    "InternalError",
    "INTERNAL_SERVER_ERROR",
    "internal server error; the log of the server holds the cause",
)
.described("The server failed; `details.request_id` names the request in its log.");
pub(super) const OVERLOADED: SharedError =
    SharedError::new("503", "Overloaded", "OVERLOADED", "the database is temporarily unavailable; retry shortly")
        .described("The server or its database is overloaded.")
        .with_headers(&["Retry-After"]);
pub(super) const MODEL_UNAVAILABLE: SharedError =
    SharedError::new("503", "ModelUnavailable", "LLM_NOT_CONFIGURED", "no model is configured")
        .described(
            "No model is configured (`LLM_NOT_CONFIGURED`), the model gave no reply (`LLM_UNAVAILABLE`), or the server \
             is overloaded (`OVERLOADED`). A reply that the model declined to give has no `Retry-After`.",
        )
        .with_headers(&["Retry-After"]);

const SHARED: [SharedError; 16] = [
    MALFORMED,
    UNAUTHENTICATED,
    LOG_IN_FORBIDDEN,
    UNVERIFIED,
    NOT_ADMIN,
    NOT_FOUND,
    BODY_TIMEOUT,
    TOO_LARGE,
    URI_TOO_LONG,
    UNSUPPORTED,
    INVALID,
    RATE_LIMITED,
    HEADERS_TOO_LARGE,
    INTERNAL,
    OVERLOADED,
    MODEL_UNAVAILABLE,
];

/// Returns all shared responses, by name.
pub(super) fn responses() -> Value {
    SHARED.iter().map(|shared| (shared.name.to_owned(), shared.response())).collect::<Map<_, _>>().into()
}

/// Returns the headers of the shared responses.
pub(super) fn headers() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    json!({
        "Retry-After": {"description": "Seconds to wait before the next attempt.", "schema": count},
        "X-RateLimit-Limit": {"description": "Requests that the window allows.", "schema": count},
        "X-RateLimit-Remaining": {"description": "Requests that remain in the window.", "schema": count},
    })
}

/// Returns the schema of error bodies.
pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "description": "The body of every error.",
        "required": ["error"],
        "additionalProperties": false,
        "properties": {"error": {
            "type": "object",
            "required": ["code", "message"],
            "additionalProperties": false,
            "properties": {
                "code": {"type": "string", "description": "For programs: `VALIDATION_ERROR`, `NOT_FOUND`, …"},
                "message": {"type": "string", "description": "For people; names the field and its limit."},
                "details": {
                    "type": "object",
                    "description": "`field` of a validation error, `request_id` of an internal one, ids of what was stored.",
                    "additionalProperties": true,
                },
            },
        }},
    })
}
