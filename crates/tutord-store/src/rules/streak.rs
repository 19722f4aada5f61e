//! Streaks: consecutive local days with a completion.
//!
//! Days are those of the student's time zone at the time of the completion, so that neither daylight
//! saving nor the end of a year shortens or lengthens one. A student's days never go back: one who
//! travels west goes on with the day of the newest completion until that day comes again.

use jiff::tz::TimeZone;

use crate::model::time::{LocalDate, Timestamp};

/// The calendar day of an instant in a time zone; by UTC where the zone is not known.
pub fn local_day(at: Timestamp, time_zone: &str) -> LocalDate {
    let zone = TimeZone::get(time_zone).unwrap_or(TimeZone::UTC);
    LocalDate(zone.to_datetime(at.to_jiff()).date())
}

/// The day that a completion counts for, and the streak that it makes. `last` is the day of the newest
/// completion before, with its streak.
pub(crate) fn extend(last: Option<(LocalDate, i32)>, day: LocalDate) -> (LocalDate, i32) {
    match last {
        Some((last, streak)) if day <= last => (last, streak),
        Some((last, streak)) if follows(last, day) => (day, streak + 1),
        _ => (day, 1),
    }
}

/// The streak that still stands on `today`: it ends when a whole day passed without a completion.
pub fn standing(last: Option<LocalDate>, streak: i32, today: LocalDate) -> i32 {
    match last {
        Some(last) if today <= last || follows(last, today) => streak,
        _ => 0,
    }
}

fn follows(day: LocalDate, next: LocalDate) -> bool {
    day.plus_days(1) == next
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::ToSpan as _;
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;

    /// The streak by its definition: how many days of the set, ending with the last, follow each other.
    fn by_definition(days: &BTreeSet<jiff::civil::Date>) -> i32 {
        let mut streak = 0;
        let mut expected = days.last().copied();
        for day in days.iter().rev() {
            if Some(*day) != expected {
                break;
            }
            streak += 1;
            expected = day.checked_sub(1.day()).ok();
        }
        streak
    }

    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/Sao_Paulo",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "Pacific/Kiritimati",
        "Pacific/Apia",
    ];

    proptest! {
        /// Over changes of daylight saving and over year ends, in any zone.
        #[test]
        fn streaks_are_runs_of_local_days(
            zone in prop::sample::select(&ZONES[..]),
            beginning in 1_570_000_000_i64..1_900_000_000,
            gaps in prop::collection::vec(1_i64..60 * 60 * 60, 1..120),
        ) {
            let mut at = beginning;
            let (mut last, mut days) = (None, BTreeSet::new());
            for gap in gaps {
                at += gap;
                let day = local_day(Timestamp::from_micros(at * 1_000_000), zone);
                last = Some(extend(last, day));
                days.insert(day.0);
                prop_assert_eq!(last, Some((LocalDate(*days.last().unwrap()), by_definition(&days))));
            }
        }

        /// Whoever completes one exercise at the same local hour each day never loses a streak, whatever
        /// the clocks do; not at midnight, where a zone may have no such hour.
        #[test]
        fn one_a_day_is_a_streak(
            zone in prop::sample::select(&ZONES[..7]), offset in 0_i64..3_000, hour in 4_i8..23, days in 1_i32..500,
        ) {
            let time_zone = TimeZone::get(zone).unwrap();
            let first = date(2019, 1, 1).checked_add(offset.days()).unwrap();
            let mut last = None;
            for index in 0..days {
                let local = first.checked_add(i64::from(index).days()).unwrap().at(hour, 0, 0, 0);
                let at = time_zone.to_timestamp(local).unwrap().as_microsecond();
                last = Some(extend(last, local_day(Timestamp::from_micros(at), zone)));
            }
            prop_assert_eq!(last.unwrap().1, days);
        }
    }

    #[test]
    fn a_streak_stands_until_a_whole_day_has_passed() {
        let day = |day| LocalDate(date(2026, 12, 31).checked_add(i64::from(day).days()).unwrap());
        assert_eq!(standing(Some(day(0)), 4, day(0)), 4);
        assert_eq!(standing(Some(day(0)), 4, day(1)), 4, "New Year's day");
        assert_eq!(standing(Some(day(0)), 4, day(2)), 0);
        assert_eq!(standing(Some(day(0)), 4, day(-1)), 4, "after travelling west");
        assert_eq!(standing(None, 0, day(0)), 0);
        assert_eq!(extend(Some((day(0), 4)), day(-1)), (day(0), 4));
    }

    #[test]
    fn days_are_local() {
        let at = Timestamp::from_micros(1_767_225_600_000_000 - 1);
        assert_eq!(local_day(at, "UTC").0, date(2025, 12, 31));
        assert_eq!(local_day(at, "Pacific/Kiritimati").0, date(2026, 1, 1));
        assert_eq!(local_day(at, "nowhere").0, date(2025, 12, 31));
    }
}
