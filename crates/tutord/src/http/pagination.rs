//! Pagination: `limit`, `offset` and `cursor` of lists. Values out of range are rejected, not clamped.

use serde::{Deserialize, Serialize};
use tutord_core::{Cursor, List, Page, PageRequest, Position};
use utoipa::ToSchema;

use crate::http::error::ApiError;

/// The maximum offset of lists without a lower maximum.
const MAX_OFFSET: i64 = i32::MAX as i64;

/// The page bounds of a list.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The default of `limit`.
    pub default: i64,
    /// The maximum of `limit`.
    pub max: i64,
    /// The largest offset.
    pub max_offset: i64,
}

impl Bounds {
    /// Returns the bounds of a list with cheap offsets.
    pub const fn new(default: i64, max: i64) -> Self {
        Self { default, max, max_offset: MAX_OFFSET }
    }
}

/// The place of a page in its list; a part of the response of every list.
#[derive(Debug, Serialize, ToSchema)]
pub struct PageInfo {
    /// The number of items in the whole list.
    total: i64,
    /// The requested number of items.
    limit: i64,
    /// Null on pages requested by cursor.
    offset: Option<i64>,
    /// Set if the list has items after this page.
    has_more: bool,
    /// The cursor of the next page; null on the last one.
    next_cursor: Option<String>,
}

impl PageInfo {
    /// Describes a page that was requested so.
    pub fn new<T>(page: &Page<T>, request: &PageRequest) -> Self {
        Self {
            total: page.total,
            limit: request.limit,
            offset: request.offset(),
            has_more: page.has_more,
            next_cursor: page.next.as_ref().map(Cursor::encode),
        }
    }
}

/// The paging parameters as texts, so that all invalid values get the same error.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Maximum number of items in the page.
    #[param(value_type = Option<i64>)]
    limit: Option<String>,
    /// Number of items to skip; not together with `cursor`.
    #[param(value_type = Option<i64>)]
    offset: Option<String>,
    /// `next_cursor` or `prev_cursor` of an earlier page.
    #[param(max_length = 24)]
    cursor: Option<String>,
}

impl PageParams {
    /// Returns the requested page.
    ///
    /// # Errors
    /// Returns a 422 that names the parameter and its bounds.
    pub fn parse(&self, bounds: Bounds, list: List) -> Result<PageRequest, ApiError> {
        let limit = integer("limit", self.limit.as_deref(), 1, bounds.max)?.unwrap_or(bounds.default);
        let offset = integer("offset", self.offset.as_deref(), 0, bounds.max_offset)?;
        let position = match (&self.cursor, offset) {
            (Some(_), Some(_)) => {
                return Err(ApiError::validation("cursor", "cursor can't be combined with offset"));
            }
            (None, offset) => Position::Offset(offset.unwrap_or(0)),
            (Some(text), None) => Position::Cursor(
                Cursor::decode(text)
                    .ok()
                    .filter(|cursor| cursor.list() == list)
                    .ok_or_else(|| ApiError::validation("cursor", format!("cursor {}", tutord_core::CursorError)))?,
            ),
        };
        Ok(PageRequest { limit, position })
    }
}

/// Parses an integer within bounds.
///
/// # Errors
/// Returns a 422 that names the parameter and its bounds.
pub fn integer(name: &str, text: Option<&str>, min: i64, max: i64) -> Result<Option<i64>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    match text.parse() {
        Ok(value) if (min..=max).contains(&value) => Ok(Some(value)),
        _ => Err(ApiError::validation(name, format!("{name} must be between {min} and {max}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds::new(20, 100);

    fn parse(limit: &str, offset: Option<&str>, cursor: Option<&str>) -> Result<PageRequest, ApiError> {
        PageParams {
            limit: Some(limit.to_owned()),
            offset: offset.map(str::to_owned),
            cursor: cursor.map(str::to_owned),
        }
        .parse(BOUNDS, List::Conversations)
    }

    #[test]
    fn defaults_and_refusals() {
        assert_eq!(PageParams::default().parse(BOUNDS, List::Conversations).unwrap(), PageRequest::first(20));
        assert_eq!(parse("0", None, None).unwrap_err().message(), "limit must be between 1 and 100");
        assert_eq!(parse("5", Some("-1"), None).unwrap_err().message(), "offset must be between 0 and 2147483647");
        assert_eq!(parse("5", Some("0"), Some("x")).unwrap_err().message(), "cursor can't be combined with offset");
        assert!(parse("5", None, Some("x")).unwrap_err().message().starts_with("cursor must be a next_cursor"));
    }

    proptest! {
        #[test]
        fn a_limit_is_accepted_exactly_within_its_bounds(limit in -1_000_i64..1_000) {
            let parsed = parse(&limit.to_string(), None, None);
            prop_assert_eq!(parsed.is_ok(), (1..=100).contains(&limit));
        }

        #[test]
        fn no_text_panics(text in ".{0,30}") {
            let _ = parse(&text, Some(&text), None);
            let _ = parse("1", None, Some(&text));
        }
    }
}
