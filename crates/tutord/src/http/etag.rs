//! Answers that the client has already are not sent again (RFC 9110, section 13).

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

use crate::error::ApiError;

/// Whose answers have an ETag: what a student reads again and again.
pub(super) const PREFIXES: [&str; 5] = ["/api/users", "/api/v1/users", "/api/chat", "/api/exercises", "/api/progress"];
/// Private: it is one student's. No-cache: it may be kept, and is asked for again each time.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");

/// Gives JSON answers a strong ETag, the hash of their bytes, and answers 304 to a client that has them.
pub(super) async fn etag<F: Future<Output = Response>>(request: Request, next: impl FnOnce(Request) -> F) -> Response {
    let applies =
        request.method() == Method::GET && PREFIXES.iter().any(|prefix| request.uri().path().starts_with(prefix));
    if !applies {
        return next(request).await;
    }
    let known: Vec<HeaderValue> = request.headers().get_all(IF_NONE_MATCH).iter().cloned().collect();
    // Strong means the same bytes, and compressed ones are others.
    let compressed = accepts_compression(request.headers());
    let response = next(request).await;
    let is_json =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    // What is streamed has no size that is known before, and is not held back to be hashed.
    let Some(size) = response.body().size_hint().exact() else { return response };
    if response.status() != StatusCode::OK || !is_json {
        return response;
    }
    let (mut parts, mut body) = response.into_parts();
    let mut tag = match parts.headers.remove(ETAG) {
        Some(tag) => tag,
        None => match to_bytes(body, usize::try_from(size).unwrap_or(usize::MAX)).await {
            Ok(bytes) => {
                let tag = of(&bytes);
                body = Body::from(bytes);
                tag
            }
            Err(error) => return ApiError::internal(&error).into_response(),
        },
    };
    if compressed {
        tag = of_compressed(&tag);
    }
    let has_it = known.iter().filter_map(|value| value.to_str().ok()).any(|tags| matches(tags, &tag));
    parts.headers.insert(ETAG, tag);
    parts.headers.insert(CACHE_CONTROL, PRIVATE);
    if has_it {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(CONTENT_TYPE);
        parts.headers.remove(axum::http::header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, body)
}

/// The strong ETag of these bytes: the first half of their SHA-256.
pub(super) fn of(bytes: &[u8]) -> HeaderValue {
    let hash = Sha256::digest(bytes)[..16].iter().fold(0_u128, |hash, byte| hash << 8 | u128::from(*byte));
    header(&format!("\"{hash:032x}\""))
}

/// That of the compressed bytes, by that of the others.
fn of_compressed(tag: &HeaderValue) -> HeaderValue {
    let tag = tag.to_str().unwrap_or_default().trim_end_matches('"');
    header(&format!("{tag}-gzip\""))
}

#[expect(clippy::expect_used, reason = "hexadecimal digits and quotes are allowed in a header")]
fn header(tag: &str) -> HeaderValue {
    HeaderValue::from_str(tag).expect("a tag of visible characters")
}

/// Whether a list of tags holds this one. Weak comparison, as RFC 9110 has it for If-None-Match.
fn matches(tags: &str, tag: &HeaderValue) -> bool {
    tags.split(',').map(str::trim).any(|known| known == "*" || *tag == *known.strip_prefix("W/").unwrap_or(known))
}

fn accepts_compression(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| coding.trim().starts_with("gzip"))
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
