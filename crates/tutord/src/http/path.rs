//! Extraction of ids from paths.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use crate::http::error::ApiError;

/// Extracts the `{id}` of a path: the decimal digits of a positive 64-bit integer. Anything else is a 422.
#[derive(Debug, Clone, Copy)]
pub struct Id(pub i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state).await.map_err(|_| ApiError::not_found("path"))?;
        params
            .iter()
            .find(|(name, _)| *name == "id")
            .and_then(|(_, value)| decimal(value))
            .map(Self)
            .ok_or_else(|| ApiError::validation("id", "id must be a positive integer"))
    }
}

/// Parses digits without leading zeros or signs, so that each resource has one path.
fn decimal(text: &str) -> Option<i64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_in_one_way() {
        assert_eq!(decimal("10"), Some(10));
        assert_eq!(decimal("9223372036854775807"), Some(i64::MAX));
        for text in ["", "0", "01", "+1", "-1", " 1", "1 ", "1.0", "1e3", "0x1", "\u{661}", "9223372036854775808"] {
            assert_eq!(decimal(text), None, "{text}");
        }
    }
}
