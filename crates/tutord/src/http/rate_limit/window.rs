//! Time windows and their counts.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The windows of one rule, written `10/min,100/h`; `none` means no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows(pub(super) Vec<(u32, Duration)>);

impl FromStr for Windows {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: must look like 10/min,100/h,200/day");
        let window = |part: &str| {
            let (count, unit) = part.trim().split_once('/')?;
            let length = match unit {
                "min" => MINUTE,
                "h" => HOUR,
                "day" => DAY,
                _ => return None,
            };
            Some((count.parse().ok().filter(|count| *count > 0)?, length))
        };
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        text.split(',')
            .filter(|part| !part.trim().is_empty())
            .map(|part| window(part).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (count, length)) in self.0.iter().enumerate() {
            let unit = match *length {
                MINUTE => "min",
                HOUR => "h",
                _ => "day",
            };
            write!(f, "{}{count}/{unit}", if index > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// The counts of two neighbouring windows of a subject.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counter {
    /// The number of the window since 1970.
    pub(super) window: u64,
    pub(super) current: u32,
    pub(super) previous: u32,
}

impl Counter {
    /// Advances to the window that contains `now`. Returns the position of `now` in it (0 to 1).
    pub(super) fn advance(&mut self, now: Duration, length: Duration) -> f64 {
        let position = now.as_secs_f64() / length.as_secs_f64();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the time since 1970 in minutes or more is positive and small"
        )]
        let window = position as u64;
        if window > self.window {
            self.previous = if window == self.window + 1 { self.current } else { 0 };
            self.current = 0;
            self.window = window;
        }
        position.fract()
    }

    /// Returns the time until one more request fits, or `None` if it fits now.
    pub(super) fn wait(&self, into: f64, limit: u32, length: Duration) -> Option<Duration> {
        let (limit, current, previous) = (f64::from(limit), f64::from(self.current), f64::from(self.previous));
        if previous * (1.0 - into) + current + 1.0 <= limit {
            return None;
        }
        let windows = if current + 1.0 <= limit {
            // Wait until enough of the previous window has slid out.
            1.0 - (limit - current - 1.0) / previous - into
        } else {
            // First this window has to become the previous one.
            (1.0 - into) + (1.0 - (limit - 1.0) / current)
        };
        Some(length.mul_f64(windows.clamp(0.0, 2.0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waiting_as_told_is_enough(times in prop::collection::vec(0_u64..200_000, 1..60)) {
            let mut times = times;
            times.sort_unstable();
            let mut counter = Counter::default();
            for millis in times {
                let now = Duration::from_millis(millis);
                let into = counter.advance(now, MINUTE);
                match counter.wait(into, 5, MINUTE) {
                    None => counter.current += 1,
                    Some(wait) => {
                        let mut later = counter;
                        let into = later.advance(now + wait + Duration::from_millis(1), MINUTE);
                        prop_assert_eq!(later.wait(into, 5, MINUTE), None);
                    }
                }
            }
        }
    }

    #[test]
    fn windows_are_read_as_they_are_written() {
        for text in ["10/min,100/h", "10/day", ""] {
            assert_eq!(text.parse::<Windows>().unwrap().to_string(), text);
        }
        for text in ["10", "0/min", "x/min", "10/week", "10/min;5/h"] {
            assert!(text.parse::<Windows>().is_err(), "{text}");
        }
    }
}
