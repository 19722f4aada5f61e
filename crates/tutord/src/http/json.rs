//! JSON bodies: parsing and validation, with errors that name the field.

use axum::body::{Bytes, HttpBody as _};
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use garde::Validate;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization as _;

use super::middleware::BodyLimit;
use super::strict::Strict;
use super::text::is_blank;
use crate::http::error::ApiError;

/// Extracts a JSON body that satisfies its `garde` rules.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

/// Like [`Json`], but an empty body is `None`.
#[derive(Debug, Clone, Copy)]
pub struct OptionalJson<T>(pub Option<T>);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned + Validate<Context = ()>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::unsupported_media_type());
        }
        parse(&read(request, state).await?).map(Self)
    }
}

impl<T, S> FromRequest<S> for OptionalJson<T>
where
    T: DeserializeOwned + Validate<Context = ()>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_json = is_json(request.headers());
        let body = read(request, state).await?;
        match (body.is_empty(), is_json) {
            (true, _) => Ok(Self(None)),
            (false, true) => parse(&body).map(|value| Self(Some(value))),
            (false, false) => Err(ApiError::unsupported_media_type()),
        }
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    let limit = request.extensions().get::<BodyLimit>().copied();
    let BodyLimit { bytes, time } = limit.ok_or_else(|| ApiError::internal(&"a route without a body limit"))?;
    if request.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(ApiError::unsupported_content_encoding());
    }
    // Reject a client that waits for `100 Continue` before it sends the body.
    if request.body().size_hint().exact().is_some_and(|length| length > bytes as u64) {
        return Err(ApiError::payload_too_large(bytes));
    }
    match tokio::time::timeout(time, Bytes::from_request(request, state)).await {
        Ok(read) => read.map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                ApiError::payload_too_large(bytes)
            }
            _ => ApiError::malformed_json("could not read the whole body"),
        }),
        Err(_) => Err(ApiError::body_timeout(time)),
    }
}

/// Returns `true` for `application/json` or a type that ends in `+json`, with any parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn parse<T: DeserializeOwned + Validate<Context = ()>>(body: &[u8]) -> Result<T, ApiError> {
    // serde_json does not check the skipped part.
    let body = std::str::from_utf8(body).map_err(|error| {
        ApiError::malformed_json(format!("the body is not UTF-8: invalid byte at offset {}", error.valid_up_to()))
    })?;
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    let mut deserializer = serde_json::Deserializer::from_str(body);
    let value: T = serde_path_to_error::deserialize(Strict(&mut deserializer)).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        if !inner.is_data() {
            return malformed(&inner);
        }
        // Invalid JSON takes precedence over an invalid field.
        match serde_json::from_str::<IgnoredAny>(body) {
            Ok(_) => data_error(&path, &inner.to_string()),
            Err(error) => malformed(&error),
        }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    if escapes_nul(body.as_bytes()) {
        return Err(nul(&field_with_nul(body.as_bytes())));
    }
    value.validate().map_err(|report| {
        let (path, error) = match report.iter().next() {
            Some((path, error)) => (path.to_string(), error.to_string()),
            None => return ApiError::validation("body", "the body is out of bounds"),
        };
        ApiError::validation(&path, format!("{path} {}", readable(&error)))
    })?;
    Ok(value)
}

/// Returns `true` if a JSON text contains the character U+0000, which JSON allows only as an escape. PostgreSQL can't
/// store it in texts.
fn escapes_nul(json: &[u8]) -> bool {
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        // Skip the byte after a backslash: an escaped backslash does not begin an escape.
        if *byte == b'\\' && bytes.next() == Some(&b'u') && bytes.as_slice().starts_with(b"0000") {
            return true;
        }
    }
    false
}

fn field_with_nul(body: &[u8]) -> String {
    fn holds(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(values) => values.iter().any(holds),
            Value::Object(fields) => fields.values().any(holds),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    fields.into_iter().find(|(_, value)| holds(value)).map_or_else(|| "body".to_owned(), |(name, _)| name)
}

/// Returns the error for a text with U+0000.
pub(super) fn nul(field: &str) -> ApiError {
    ApiError::validation(field, format!("{field} must not contain the character U+0000"))
}

fn malformed(error: &serde_json::Error) -> ApiError {
    let error = error.to_string();
    // The grammar of JSON allows values that no string and no number can represent.
    let what = if error.contains("surrogate") || error.starts_with("unexpected end of hex escape") {
        "the body contains an unpaired surrogate"
    } else if error.starts_with("number out of range") {
        "the body contains a number out of range"
    } else if error.starts_with("recursion limit exceeded") {
        "the body is nested too deep"
    } else {
        "the body is not JSON"
    };
    ApiError::malformed_json(format!("{what}: {error}"))
}

/// Rewrites garde's messages: `length is lower than 1` becomes `must have at least 1 character`.
fn readable(violation: &str) -> String {
    let bound = |prefix: &str| violation.strip_prefix(prefix).map(str::to_owned);
    let plural = |count: String| if count == "1" { "1 character".to_owned() } else { format!("{count} characters") };
    if let Some(min) = bound("length is lower than ") {
        format!("must have at least {}", plural(min))
    } else if let Some(max) = bound("length is greater than ") {
        format!("must have at most {}", plural(max))
    } else if let Some(min) = bound("lower than ") {
        format!("must be at least {min}")
    } else if let Some(max) = bound("greater than ") {
        format!("must be at most {max}")
    } else {
        violation.to_owned()
    }
}

/// The maximum number of characters of a serde message in a response.
const MESSAGE_CHARS: usize = 300;

/// Returns the error for a value of the wrong type: serde's message with the field.
pub(super) fn data_error(path: &str, message: &str) -> ApiError {
    // serde reports a missing field at its parent, and serde_json adds where in the text it was.
    let message = message.split(" at line ").next().unwrap_or(message);
    // Messages repeat the input, which can be long.
    let message: &str = &message.chars().take(MESSAGE_CHARS).collect::<String>();
    if let Some(field) = message.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`')) {
        return ApiError::validation(field, format!("{field} must be given once"));
    }
    // Clients do not know the names of Rust types.
    let message = match message.split_once(", expected struct ") {
        Some((found, _)) => format!("{found}, expected an object"),
        None => message.to_owned(),
    };
    let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match (missing, path) {
        (Some(field), "." | "") => ApiError::validation(field, format!("{field} is required")),
        (Some(field), parent) => {
            let field = format!("{parent}.{field}");
            ApiError::validation(&field, format!("{field} is required"))
        }
        (None, "." | "") => ApiError::validation("body", message),
        (None, field) => ApiError::validation(field, format!("{field}: {message}")),
    }
}

/// Deserializes a string and trims white space, so that limits apply to the stored text. Rejects a string with only
/// invisible characters; the limits decide whether it may be empty.
pub fn trimmed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    visible(text.trim()).map(str::to_owned)
}

/// Like [`trimmed`], but also converts to Unicode's composed form (NFC), because keyboards and pasted texts differ in
/// it.
pub fn trimmed_nfc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    trimmed(deserializer).map(|text| text.nfc().collect())
}

/// Like [`trimmed`], for a field that can be absent or null.
pub fn trimmed_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| visible(text.trim()).map(str::to_owned)).transpose()
}

/// Deserializes a string unchanged. Rejects a string with only invisible characters, unless it is empty.
pub fn not_blank<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    visible::<D::Error>(&text)?;
    Ok(text)
}

fn visible<E: serde::de::Error>(text: &str) -> Result<&str, E> {
    if !text.is_empty() && is_blank(text) {
        return Err(E::custom("must have at least 1 visible character"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, Validate)]
    struct Body {
        #[serde(deserialize_with = "trimmed")]
        #[garde(length(chars, min = 1, max = 3))]
        name: String,
        #[garde(range(min = 1))]
        id: Option<i64>,
    }

    fn refused(body: &str) -> (String, String) {
        let error = parse::<Body>(body.as_bytes()).unwrap_err();
        (error.code().to_owned(), error.message().to_owned())
    }

    #[test]
    fn a_body_that_no_text_or_number_can_hold_is_malformed() {
        for (body, expected) in [
            (&br#"{"name": "\ud800"}"#[..], "the body contains an unpaired surrogate: "),
            (br#"{"name": "\ude00"}"#, "the body contains an unpaired surrogate: "),
            (br#"{"id": 1e400, "name": "a"}"#, "the body contains a number out of range: "),
            (b"{\"name\": \"\xff\"}", "the body is not UTF-8: invalid byte at offset 10"),
            (b"{\"name\": \"a\", \"other\": \"\xff\"}", "the body is not UTF-8: invalid byte at offset 24"),
            (b"[1", "the body is not JSON: "),
        ] {
            let error = parse::<Body>(body).unwrap_err();
            assert_eq!(error.code(), "MALFORMED_JSON");
            assert!(error.message().starts_with(expected), "{}", error.message());
        }
        let deep = format!(r#"{{"name": "a", "other": {}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
        assert!(parse::<Body>(deep.as_bytes()).is_ok(), "what is not known is passed over");
    }

    #[test]
    fn every_refusal_names_its_field_and_bound() {
        let validation = |message: &str| ("VALIDATION_ERROR".to_owned(), message.to_owned());
        assert_eq!(refused("{}"), validation("name is required"));
        assert_eq!(refused(r#"{"name": "  "}"#), validation("name must have at least 1 character"));
        let blank = validation("name: must have at least 1 visible character");
        assert_eq!(refused(r#"{"name": " \u200b\u202e "}"#), blank);
        assert_eq!(refused(r#"{"name": "éééé"}"#), validation("name must have at most 3 characters"));
        assert_eq!(refused(r#"{"name": "a", "id": 0}"#), validation("id must be at least 1"));
        assert_eq!(refused(r#"{"name": "a", "name": "b"}"#), validation("name must be given once"));
        assert_eq!(refused(r#"{"name": 5}"#), validation("name: invalid type: integer `5`, expected a string"));
        let long = format!(r#"{{"name": "a", "id": "{}"}}"#, "x".repeat(10_000));
        assert!(refused(&long).1.chars().count() < 400);
        assert_eq!(refused("{").0, "MALFORMED_JSON");
        assert_eq!(refused(r#"{"name": "a"} x"#).0, "MALFORMED_JSON");
        let nul = validation("name must not contain the character U+0000");
        assert_eq!(refused(r#"{"other": "\\", "name": "a\u0000"}"#), nul);
        assert_eq!(parse::<Body>(r#"{"name": "\\", "other": "\\u0000"}"#.as_bytes()).unwrap().name, "\\");
        assert_eq!(parse::<Body>(r#"{"name": " ééé ", "other": 1}"#.as_bytes()).unwrap().name, "ééé");
    }
}
