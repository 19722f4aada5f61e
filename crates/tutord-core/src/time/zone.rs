//! Calendar days in time zones.

use jiff::tz::TimeZone;

use super::{LocalDate, Timestamp};

/// Returns the zone with this IANA name, or UTC if the name is unknown.
pub fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap_or(TimeZone::UTC)
}

/// Returns the calendar day of an instant in a time zone, or in UTC if the zone is unknown.
pub fn local_day(at: Timestamp, time_zone: &str) -> LocalDate {
    day_in(&zone(time_zone), at)
}

/// Returns the calendar day of an instant in a time zone.
pub fn day_in(zone: &TimeZone, at: Timestamp) -> LocalDate {
    LocalDate(zone.to_datetime(at.to_jiff()).date())
}
