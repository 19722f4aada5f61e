//! Conditional requests: ETags and 304 responses (RFC 9110, section 13).

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use crate::http::error::ApiError;

/// The routes whose responses have an ETag: those that students read repeatedly.
pub(super) const PREFIXES: [&str; 5] = ["/api/users", "/api/v1/users", "/api/chat", "/api/exercises", "/api/progress"];
/// Private, because the response belongs to one student; no-cache, because clients must revalidate it.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Adds a strong ETag to a JSON response: the hash of the uncompressed bytes.
pub(super) async fn tag(response: Response) -> Response {
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json || response.status() != StatusCode::OK {
        return response;
    }
    // A stream has no known size, and is not held back to be hashed.
    let Some(size) = response.body().size_hint().exact() else { return response };
    let (mut parts, mut body) = response.into_parts();
    if !parts.headers.contains_key(ETAG) {
        match to_bytes(body, usize::try_from(size).unwrap_or(usize::MAX)).await {
            Ok(bytes) => {
                parts.headers.insert(ETAG, of(&bytes));
                body = Body::from(bytes);
            }
            Err(error) => return ApiError::internal(&error).into_response(),
        }
    }
    parts.headers.insert(CACHE_CONTROL, PRIVATE);
    Response::from_parts(parts, body)
}

/// The ETags that a client has cached.
pub(super) struct Conditions(Vec<HeaderValue>);

impl Conditions {
    pub(super) fn of(request: &Request) -> Self {
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        Self(if reads { request.headers().get_all(IF_NONE_MATCH).iter().cloned().collect() } else { Vec::new() })
    }

    /// Replaces a response by a 304 if the client has cached it. Runs once it is known whether the response is
    /// compressed: a strong ETag identifies exact bytes, and compressed bytes differ. A 304 needs no compression.
    pub(super) fn apply(&self, response: &mut Response) {
        let Some(mut tag) = response.headers().get(ETAG).cloned().filter(|_| response.status() == StatusCode::OK)
        else {
            return;
        };
        if response.headers().contains_key(CONTENT_ENCODING) {
            tag = of_compressed(&tag);
            response.headers_mut().insert(ETAG, tag.clone());
        }
        if self.0.iter().filter_map(|value| value.to_str().ok()).any(|tags| matches(tags, &tag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING] {
                response.headers_mut().remove(name);
            }
            *response.body_mut() = Body::empty();
        }
    }
}

/// Returns the strong ETag of these bytes: the first half of their SHA-256.
pub(super) fn of(bytes: &[u8]) -> HeaderValue {
    let hash = Sha256::digest(bytes)[..16].iter().fold(0_u128, |hash, byte| hash << 8 | u128::from(*byte));
    header(&format!("\"{hash:032x}\""))
}

/// Returns the ETag of the compressed bytes, derived from that of the uncompressed ones.
fn of_compressed(tag: &HeaderValue) -> HeaderValue {
    let tag = tag.to_str().unwrap_or_default().trim_end_matches('"');
    header(&format!("{tag}-gzip\""))
}

#[expect(clippy::expect_used, reason = "hexadecimal digits and quotes are allowed in a header")]
fn header(tag: &str) -> HeaderValue {
    HeaderValue::from_str(tag).expect("a tag of visible characters")
}

/// Returns `true` if a list of ETags contains this one. Uses weak comparison, as RFC 9110 defines for If-None-Match.
fn matches(tags: &str, tag: &HeaderValue) -> bool {
    tags.split(',').map(str::trim).any(|known| known == "*" || *tag == *known.strip_prefix("W/").unwrap_or(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_tag_of_the_list_will_do() {
        for tags in ["\"a\"", "\"b\", \"a\"", "W/\"a\"", "*"] {
            assert!(matches(tags, &header("\"a\"")), "{tags}");
        }
        for tags in ["", "a", "\"ab\"", "\"b\",\"c\""] {
            assert!(!matches(tags, &header("\"a\"")), "{tags}");
        }
    }
}
