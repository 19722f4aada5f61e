//! Limits of request heads. The HTTP library has larger limits, whose rejections have no body.

use axum::extract::Request;
use axum::http::Version;
use axum::http::header::{HOST, TRANSFER_ENCODING};

use crate::http::error::ApiError;

const MAX_URI_BYTES: usize = 8_192;
const MAX_HEADERS: usize = 96;
const MAX_HEADERS_BYTES: usize = 32_768;

/// Rejects a path with query, or headers, longer than any client of the API needs.
///
/// # Errors
/// Returns 414 or 431, which name the limit.
pub(super) fn check(request: &Request) -> Result<(), ApiError> {
    let uri = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if uri > MAX_URI_BYTES {
        return Err(ApiError::uri_too_long(MAX_URI_BYTES));
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADERS_BYTES {
        return Err(ApiError::headers_too_large(MAX_HEADERS, MAX_HEADERS_BYTES));
    }
    // RFC 9112, section 3.2: a proxy could choose the other of two hosts, and serve one host's response for the other.
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Err(ApiError::malformed_head("the request must have exactly one Host header"));
    }
    // Section 6.1: the server would read the undecoded bytes as the body.
    let codings = headers.get_all(TRANSFER_ENCODING);
    if codings.iter().any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked")) || codings.iter().count() > 1 {
        return Err(ApiError::malformed_head("Transfer-Encoding must be chunked"));
    }
    Ok(())
}
