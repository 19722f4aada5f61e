//! Streaks: consecutive local days with a completion.
//!
//! Days are those of the student's time zone at the time of the completion, so that neither daylight saving nor the end
//! of a year shortens or lengthens one. Time zones change under a streak, when students travel or say that they do. The
//! rule for a completion at `t` in the zone `z` after a streak of `n` days:
//!
//! 1. **It breaks** when more than 24 hours passed since the completion before it, and its day in `z` is later than the
//!    day after the one that the streak counted last. Then a streak of 1 begins.
//! 2. Otherwise **a day is added** when, by the calendar of `z` alone, (a) `t` lies on a later day than the completion
//!    that added the day before, and (b) at least `n` midnights passed since the streak began.
//!
//! The rules imply the following properties, each of which a test checks:
//!
//! - A student who completes an exercise at least every 24 hours keeps the streak in any zones: rule 1.
//! - A streak of `n` days takes more than `n - 2` times 24 hours, less what the clocks of the last zone were put forward
//!   meanwhile: `n - 1` midnights of one zone lie `n - 2` days apart, rule 2b. In one zone it takes no less: one
//!   completion before midnight and one after it are a streak of 2.
//! - Without a change of zone a streak is a run of local days: each day after the first passes one more midnight. The
//!   exception is a day of less than 24 hours, which may pass between two completions that rule 1 keeps together.
//!
//! A day that is added has a date of its own, the later of the date in `z` and the day after the last one, so that dates
//! never go back: one who travels west may be a date ahead for a while.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::time::zone::day_in;
use crate::time::{LocalDate, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns the number of midnights of a zone between two instants.
fn midnights(zone: &TimeZone, from: Timestamp, to: Timestamp) -> i64 {
    let days = day_in(zone, to).0.duration_since(day_in(zone, from).0);
    days.as_hours() / 24
}

/// A streak as it is after a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streak {
    /// The number of days.
    pub days: i32,
    /// The date of the newest day.
    pub day: LocalDate,
    /// The time of the first completion.
    pub since: Timestamp,
    /// The time of the completion that added the newest day.
    pub day_since: Timestamp,
    /// The time of the newest completion.
    pub until: Timestamp,
}

impl Streak {
    /// Returns the streak after another completion. `zone` is the student's zone at that time; completions without a
    /// recorded zone count by their day only.
    pub fn extended(last: Option<Self>, at: Timestamp, day: LocalDate, zone: Option<&TimeZone>) -> Self {
        let Some(last) = last.filter(|last| continues(last.day, Some(last.until), day, at)) else {
            return Self { days: 1, day, since: at, day_since: at, until: at };
        };
        let adds_a_day = zone.map_or(day > last.day, |zone| {
            midnights(zone, last.day_since, at) > 0 && midnights(zone, last.since, at) >= i64::from(last.days)
        });
        if adds_a_day {
            Self { days: last.days + 1, day: day.max(last.day.plus_days(1)), day_since: at, until: at, ..last }
        } else {
            Self { day: day.max(last.day), until: at, ..last }
        }
    }
}

/// Returns `true` if a completion now would continue a streak with the newest day `last` and the newest completion at
/// `until`.
fn continues(last: LocalDate, until: Option<Timestamp>, today: LocalDate, now: Timestamp) -> bool {
    today <= last.plus_days(1) || until.is_some_and(|until| now <= until + DAY)
}

/// Returns the streak that students see: 0 once a completion would begin a new one.
pub fn current_streak(
    last: Option<LocalDate>,
    until: Option<Timestamp>,
    streak: i32,
    now: Timestamp,
    today: LocalDate,
) -> i32 {
    if last.is_some_and(|last| continues(last, until, today, now)) { streak } else { 0 }
}

/// The date of a new daily exercise for a student whose newest one has the date `last` and was handed out at `since`;
/// `None` while that one is the day's.
///
/// A new one needs a later day by the calendar of `zone` alone, and a date that no daily exercise had, or 24 hours. So
/// nobody has to wait for more than a day, and all dates lie between those that the world's first and last zone had:
/// changing zones hands out three more than there were days, in all and not each time.
pub fn daily_date(last: Option<(LocalDate, Timestamp)>, at: Timestamp, zone: &TimeZone) -> Option<LocalDate> {
    let today = day_in(zone, at);
    let Some((last, since)) = last else { return Some(today) };
    let is_due = midnights(zone, since, at) > 0 && (today > last || at >= since + DAY);
    is_due.then(|| today.max(last.plus_days(1)))
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use jiff::civil::date;
    use proptest::prelude::*;

    use super::*;
    use crate::time::zone::{self, local_day};

    /// The first and the last of the world, and some whose clocks change by half an hour, two hours or at midnight.
    const ZONES: [&str; 16] = [
        "Pacific/Pago_Pago",
        "Pacific/Honolulu",
        "America/Los_Angeles",
        "America/Havana",
        "America/Sao_Paulo",
        "America/St_Johns",
        "UTC",
        "Europe/Berlin",
        "Africa/Casablanca",
        "Antarctica/Troll",
        "Asia/Beirut",
        "Asia/Kolkata",
        "Asia/Tokyo",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Kiritimati",
    ];
    const HOUR: i64 = 60 * 60;
    /// The most that the clocks of one of these zones are put forward.
    const FORWARD: i64 = 2 * HOUR;

    fn instant(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn seconds(from: Timestamp, to: Timestamp) -> i64 {
        (to.as_micros() - from.as_micros()) / 1_000_000
    }

    fn extended(last: Option<Streak>, at: i64, zone: &str) -> Streak {
        let (at, zone) = (instant(at), zone::zone(zone));
        Streak::extended(last, at, day_in(&zone, at), Some(&zone))
    }

    fn seen(streak: &Streak, now: i64, zone: &str) -> i32 {
        let now = instant(now);
        current_streak(Some(streak.day), Some(streak.until), streak.days, now, local_day(now, zone))
    }

    /// Completions one after the other, each after some seconds and in some zone.
    fn flights(longest_gap: i64) -> impl Strategy<Value = (i64, Vec<(i64, &'static str)>)> {
        let step = (1..=longest_gap, prop::sample::select(&ZONES[..]));
        (1_570_000_000_i64..1_900_000_000, prop::collection::vec(step, 1..150))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn whoever_completes_one_every_24_hours_keeps_the_streak((mut at, steps) in flights(24 * HOUR)) {
            let first = extended(None, at, "UTC");
            let mut streak = first;
            for (gap, zone) in steps {
                for elsewhere in ZONES {
                    prop_assert_eq!(seen(&streak, at + gap, elsewhere), streak.days, "seen in {}", elsewhere);
                }
                at += gap;
                let next = extended(Some(streak), at, zone);
                prop_assert_eq!(next.since, first.since);
                prop_assert!((streak.days..=streak.days + 1).contains(&next.days));
                streak = next;
            }
            // It grows, too: at the latest with the second completion after a day has passed.
            let elapsed = seconds(streak.since, streak.until);
            prop_assert!(i64::from(streak.days) * (49 * HOUR + FORWARD) >= elapsed, "{} of {} s", streak.days, elapsed);
        }

        #[test]
        fn no_change_of_zone_adds_days_that_did_not_pass((mut at, steps) in flights(50 * HOUR)) {
            let mut last: Option<Streak> = None;
            for (gap, zone) in steps {
                // Some changes come within a minute.
                at += if gap % 3 == 0 { gap % 60 } else { gap };
                let streak = extended(last, at, zone);
                let elapsed = seconds(streak.since, streak.until);
                prop_assert!(elapsed > i64::from(streak.days - 2) * 24 * HOUR - FORWARD, "{streak:?} in {elapsed} s");
                if let Some(last) = last {
                    prop_assert!(streak.day >= last.day, "days go back");
                    prop_assert!(streak.days <= last.days || streak.day > last.day, "one day counts twice");
                }
                last = Some(streak);
            }
        }

        /// Over changes of daylight saving and over year ends.
        #[test]
        fn in_one_zone_a_streak_is_a_run_of_local_days(
            zone in prop::sample::select(&ZONES[..]), (mut at, steps) in flights(60 * HOUR),
        ) {
            let mut streak = extended(None, at, zone);
            let (mut newest, mut days, mut at_newest) = (local_day(instant(at), zone), 1, at);
            for (gap, _) in steps {
                at += gap;
                let day = local_day(instant(at), zone);
                if day > newest {
                    // The second day has 23 hours, so nobody can miss it.
                    let follows = day == newest.plus_days(1) || at - at_newest <= 24 * HOUR;
                    prop_assert_eq!(seen(&streak, at, zone), if follows { days } else { 0 });
                    days = if follows { days + 1 } else { 1 };
                    newest = day;
                }
                at_newest = at;
                streak = extended(Some(streak), at, zone);
                prop_assert_eq!((streak.day, streak.days), (newest, days));
            }
        }

        /// At the same local hour each day; not at midnight, where a zone may have no such hour.
        #[test]
        fn one_a_day_is_a_streak(
            zone in prop::sample::select(&ZONES[..]), offset in 0_i64..3_000, hour in 4_i8..23, days in 1_i32..500,
        ) {
            let time_zone = zone::zone(zone);
            let first = date(2019, 1, 1).checked_add(offset.days()).unwrap();
            let mut last = None;
            for index in 0..days {
                let local = first.checked_add(i64::from(index).days()).unwrap().at(hour, 0, 0, 0);
                last = Some(extended(last, time_zone.to_timestamp(local).unwrap().as_second(), zone));
            }
            prop_assert_eq!(last.unwrap().days, days);
        }

        #[test]
        fn a_day_has_one_daily_exercise(zone in prop::sample::select(&ZONES[..]), (mut at, steps) in flights(60 * HOUR)) {
            let time_zone = zone::zone(zone);
            let mut last = None;
            for (gap, _) in steps {
                at += gap;
                let today = day_in(&time_zone, instant(at));
                let is_new = last.is_none_or(|(last, _)| today > last);
                prop_assert_eq!(daily_date(last, instant(at), &time_zone), is_new.then_some(today));
                if is_new {
                    last = Some((today, instant(at)));
                }
            }
        }

        #[test]
        fn no_change_of_zone_hands_out_exercises_of_days_that_did_not_pass((mut at, steps) in flights(30 * HOUR)) {
            let (first, mut count, mut last) = (at, 0, None::<(LocalDate, Timestamp)>);
            for (gap, zone) in steps {
                at += if gap % 3 == 0 { gap % 60 } else { gap };
                if let Some(day) = daily_date(last, instant(at), &zone::zone(zone)) {
                    prop_assert!(last.is_none_or(|(last, _)| day > last));
                    last = Some((day, instant(at)));
                    count += 1;
                }
                prop_assert!(count - 2 <= (at - first + 26 * HOUR) / (24 * HOUR), "{count} in {} s", at - first);
            }
        }
    }

    /// With a midnight in each hour: whoever takes every day and every exercise that any zone offers.
    #[test]
    fn the_greediest_traveller_gains_one_day() {
        let zones: Vec<TimeZone> = (-14..=12).rev().map(|hours| zone::zone(&format!("Etc/GMT{hours:+}"))).collect();
        let (begin, step) = (1_795_775_400, 600);
        let first = extended(None, begin, "Etc/GMT+12");
        let mut streak = first;
        let (mut dailies, mut daily) = (0, None);
        for at in (begin..begin + 20 * 24 * HOUR).step_by(step) {
            let at = instant(at);
            for zone in &zones {
                let next = Streak::extended(Some(streak), at, day_in(zone, at), Some(zone));
                if next.days > streak.days {
                    streak = next;
                }
                if let Some(day) = daily_date(daily, at, zone) {
                    (dailies, daily) = (dailies + 1, Some((day, at)));
                }
            }
        }
        assert_eq!((streak.since, streak.days), (first.since, 21), "in 20 days");
        assert!(dailies <= 23, "{dailies} in 20 days");
    }

    #[test]
    fn three_dates_at_once_are_one_day() {
        // 2026-11-27T10:30:00Z.
        let at = 1_795_775_400;
        let mut last = None;
        for (index, zone) in ["Pacific/Pago_Pago", "UTC", "Pacific/Kiritimati", "UTC"].into_iter().enumerate() {
            last = Some(extended(last, at + 10 * i64::try_from(index).unwrap(), zone));
            assert_eq!(last.unwrap().days, 1, "{zone}");
        }
        assert_eq!(last.unwrap().day.0, date(2026, 11, 28), "the latest date of them");
        let next = extended(last, at + 24 * HOUR, "UTC");
        assert_eq!((next.days, next.day.0), (2, date(2026, 11, 29)));
        assert_eq!(extended(Some(next), at + 48 * HOUR, "UTC").days, 3);
    }

    #[test]
    fn a_streak_is_seen_until_a_whole_day_has_passed() {
        // 2026-12-31T20:00:00Z.
        let at = 1_798_747_200;
        let streak = extended(None, at, "UTC");
        assert_eq!(seen(&streak, at + 27 * HOUR, "UTC"), 1, "New Year's day");
        assert_eq!(seen(&streak, at + 28 * HOUR, "UTC"), 0);
        assert_eq!(seen(&streak, at + 24 * HOUR, "Pacific/Kiritimati"), 1, "24 hours later, on 2 January there");
        assert_eq!(seen(&streak, at + 25 * HOUR, "Pacific/Kiritimati"), 0);
        assert_eq!(seen(&streak, at + 38 * HOUR, "Pacific/Pago_Pago"), 1);
        assert_eq!(current_streak(None, None, 0, instant(at), local_day(instant(at), "UTC")), 0);
    }

    #[test]
    fn whoever_travels_each_day_adds_a_day_each_day() {
        let mut last = None;
        for number in 0..30 {
            let zone = if number % 2 == 0 { "Asia/Tokyo" } else { "America/Los_Angeles" };
            // At midnight in UTC: 9 in the morning, and the afternoon before.
            last = Some(extended(last, 1_798_761_600 + i64::from(number) * 24 * HOUR, zone));
            assert_eq!(last.unwrap().days, number + 1);
        }
    }

    #[test]
    fn days_without_a_zone_count_by_their_dates() {
        let day = |number| LocalDate(date(2026, 1, 30)).plus_days(number);
        let mut last = None;
        for (number, days) in [(0, 1), (0, 1), (1, 2), (2, 3), (4, 1)] {
            last = Some(Streak::extended(last, instant(1_800_000_000 + number * 30 * HOUR), day(number), None));
            assert_eq!((last.unwrap().day, last.unwrap().days), (day(number), days));
        }
    }

    #[test]
    fn days_are_local() {
        let at = Timestamp::from_micros(1_767_225_600_000_000 - 1);
        assert_eq!(local_day(at, "UTC").0, date(2025, 12, 31));
        assert_eq!(local_day(at, "Pacific/Kiritimati").0, date(2026, 1, 1));
        assert_eq!(local_day(at, "nowhere").0, date(2025, 12, 31));
    }
}
