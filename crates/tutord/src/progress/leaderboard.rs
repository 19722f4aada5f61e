//! Leaderboards by points or by longest streak.

use serde::Deserialize;
use tutord_core::Timestamp;
use tutord_core::model::progress::{Board, starts_on, utc_day};
use tutord_core::model::{Metric, Period};

use crate::http::error::ApiError;
use crate::http::pagination::Bounds;

/// The maximum offset. An offset reads all entries before it; a cursor does not.
pub(crate) const ENTRIES: Bounds = Bounds { max_offset: 10_000, ..Bounds::new(20, 100) };
/// The number of neighbours on each side.
pub(super) const NEIGHBOURS: i64 = 5;

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct BoardQuery {
    /// `points` (the default) or `streak`: the longest of the period.
    #[param(inline)]
    metric: Option<Metric>,
    /// `all` (the default), `weekly` or `monthly`: the current week from Monday, or month, in UTC.
    #[param(inline)]
    period: Option<Period>,
    /// Only exercises of this language.
    #[param(max_length = 50)]
    language: Option<String>,
}

impl BoardQuery {
    /// Returns the leaderboard.
    ///
    /// # Errors
    /// Returns a 422 if the period or the language is invalid.
    pub(super) fn board(self) -> Result<Board, ApiError> {
        let period = self.period.unwrap_or(Period::All);
        if period == Period::Daily {
            return Err(ApiError::validation("period", "period must be one of weekly, monthly, all"));
        }
        let language = self.language.unwrap_or_default().trim().to_lowercase();
        if language.chars().count() > 50 {
            return Err(ApiError::validation("language", "language must have at most 50 characters"));
        }
        Ok(Board {
            metric: self.metric.unwrap_or(Metric::Points),
            period,
            starts_on: starts_on(period, utc_day(Timestamp::now())),
            language,
        })
    }
}
