//! Content codings that a client accepts.

use axum::http::header::ACCEPT_ENCODING;
use axum::http::{HeaderMap, HeaderValue};

/// Allows uncompressed bytes for a client that accepts none of the available codings.
///
/// RFC 9110, section 12.5.3, permits this. The compression layer would respond with 406 after the route has run, so
/// that the client would take a completed request for a rejected one.
pub(super) fn accept_identity(headers: &mut HeaderMap) {
    let codings = |value: &HeaderValue| value.to_str().unwrap_or_default().to_ascii_lowercase();
    let refuses = |coding: &str| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        matches!(name.trim(), "identity" | "*") && parameters.contains('0')
    };
    let refused = headers.get_all(ACCEPT_ENCODING).iter().any(|value| codings(value).split(',').any(refuses));
    if !refused {
        return;
    }
    // A coding that the list does not name is not sent, so dropping the refusals does not change its meaning.
    let kept: Vec<String> = headers.get_all(ACCEPT_ENCODING).iter().map(codings).collect();
    let kept: Vec<&str> = kept.iter().flat_map(|value| value.split(',')).filter(|coding| !refuses(coding)).collect();
    match HeaderValue::from_str(&kept.join(",")) {
        Ok(value) => headers.insert(ACCEPT_ENCODING, value),
        Err(_) => headers.remove(ACCEPT_ENCODING),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uncompressed_bytes_are_never_refused() {
        for (sent, expected) in [
            ("gzip", "gzip"),
            ("gzip;q=0, *", "gzip;q=0, *"),
            ("identity;q=0", ""),
            ("GZIP, identity; Q=0.000", "gzip"),
            ("*;q=0, gzip;q=0.5", " gzip;q=0.5"),
            ("gzip, *;q=1.0", "gzip"),
        ] {
            let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, sent.parse().unwrap())]);
            accept_identity(&mut headers);
            assert_eq!(headers[ACCEPT_ENCODING], expected, "{sent}");
        }
    }
}
