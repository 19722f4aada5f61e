//! Instants and calendar days.

mod sql;
pub mod zone;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use serde::{Deserialize, Serialize};

use crate::sql_types::{Day, Instant};

/// An instant in UTC with microsecond precision, written `2026-01-02T03:04:05.678901Z`.
///
/// Both databases store microseconds, so a value reads back as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Instant)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Returns the current instant of the system's clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// Creates the instant `micros` microseconds after 1970-01-01T00:00:00Z.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns the microseconds since 1970-01-01T00:00:00Z.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Converts to a `jiff` timestamp, for time zones and calendars; clamped to jiff's range (years -9999 to 9999).
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or(if self.0 < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        })
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(rhs.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.to_jiff())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let instant = jiff::Timestamp::deserialize(deserializer)?;
        Ok(Self(instant.as_microsecond()))
    }
}

/// A calendar day in some time zone, written `YYYY-MM-DD`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, AsExpression, FromSqlRow,
)]
#[serde(transparent)]
#[diesel(sql_type = Day)]
pub struct LocalDate(pub jiff::civil::Date);

impl LocalDate {
    /// Adds a number of days, which can be negative. Clamped to the calendar (years -9999 to 9999).
    #[must_use]
    pub fn plus_days(self, days: i64) -> Self {
        // A span holds a little more than the calendar's days.
        let days = days.clamp(-7_300_000, 7_300_000);
        Self(self.0.saturating_add(jiff::Span::new().days(days)))
    }
}

impl fmt::Display for LocalDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(feature = "openapi")]
mod openapi {
    use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
    use utoipa::openapi::{RefOr, Schema};

    macro_rules! string_schema {
        ($type:ty, $format:ident, $example:literal) => {
            impl utoipa::PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .format(Some(SchemaFormat::KnownFormat(KnownFormat::$format)))
                        .examples([$example])
                        .into()
                }
            }
            impl utoipa::ToSchema for $type {}
        };
    }
    string_schema!(super::Timestamp, DateTime, "2026-01-02T03:04:05.678901Z");
    string_schema!(super::LocalDate, Date, "2026-01-02");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn always_writes_six_fraction_digits() {
        let second = Timestamp::from_micros(1_767_323_045_000_000);
        assert_eq!(second.to_string(), "2026-01-02T03:04:05.000000Z");
        let json = serde_json::to_string(&Timestamp::from_micros(1_767_323_045_678_901)).unwrap();
        assert_eq!(json, "\"2026-01-02T03:04:05.678901Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap().as_micros(), 1_767_323_045_678_901);
    }
}
