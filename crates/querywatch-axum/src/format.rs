//! Formatting of figures.

use jiff::Timestamp;
use maud::{Markup, html};

/// Converts an integer to a float for rates and shares.
#[expect(clippy::cast_precision_loss, reason = "a rate needs no 52 bits")]
pub const fn float(value: u64) -> f64 {
    value as f64
}

/// Formats a number with three digits.
fn digits(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// Formats microseconds in a suitable unit.
pub fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{} ms", digits(float(us) / 1e3)),
        _ => format!("{} s", digits(float(us) / 1e6)),
    }
}

/// Formats microseconds, or returns a dash if the count is 0.
pub fn time_of(us: u64, counted: u64) -> String {
    if counted == 0 { "–".to_owned() } else { time(us) }
}

/// Formats milliseconds in a suitable unit.
pub fn milliseconds(ms: f64) -> String {
    time(
        std::time::Duration::try_from_secs_f64(ms / 1e3)
            .map_or(0, |time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
    )
}

/// Formats a duration in words, such as `5 minutes`.
pub fn words(duration: std::time::Duration) -> String {
    match duration.as_secs() {
        60 => "minute".to_owned(),
        seconds if seconds >= 60 && seconds.is_multiple_of(60) => format!("{} minutes", seconds / 60),
        0 => format!("{} ms", duration.as_millis()),
        seconds => format!("{seconds} s"),
    }
}

/// Returns the first 120 characters of a statement.
pub fn head(sql: &str) -> String {
    const MAX_CHARS: usize = 120;
    let mut head: String = sql.chars().take(MAX_CHARS).collect();
    if head.len() < sql.len() {
        head.push('…');
    }
    head
}

/// Formats a number with separated thousands.
pub fn count(value: u64) -> String {
    let text = value.to_string();
    let mut parted = String::with_capacity(text.len() * 4 / 3);
    for (index, digit) in text.chars().enumerate() {
        if index > 0 && (text.len() - index).is_multiple_of(3) {
            parted.push('\u{202f}');
        }
        parted.push(digit);
    }
    parted
}

/// Formats a small number, such as a number of connections.
pub fn size(value: usize) -> String {
    count(u64::try_from(value).unwrap_or(u64::MAX))
}

/// Formats a rate per second.
pub fn rate(per_second: f64) -> String {
    format!("{}/s", digits(per_second))
}

/// Formats a share from 0 to 1 as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Formats bytes in a suitable unit.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{} kB", digits(float(bytes) / 1e3)),
        1_000_000..1_000_000_000 => format!("{} MB", digits(float(bytes) / 1e6)),
        _ => format!("{} GB", digits(float(bytes) / 1e9)),
    }
}

/// Formats a value of a chart.
pub fn decimal(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), digits)
}

fn timestamp(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

/// Formats the time of day, in UTC.
pub fn clock(ms: u64) -> String {
    timestamp(ms).map(|at| at.strftime("%H:%M:%S").to_string()).unwrap_or_default()
}

/// Renders a date and time, in UTC.
pub fn when(ms: u64) -> Markup {
    let Some(at) = timestamp(ms) else { return html! {} };
    html! { time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) { (at.strftime("%Y-%m-%d %H:%M:%S")) } }
}

/// Returns the current time in milliseconds since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        assert_eq!([0, 999, 1_000, 23_450, 999_999].map(time), ["0 µs", "999 µs", "1.00 ms", "23.4 ms", "1000 ms"]);
        assert_eq!(time(1_500_000), "1.50 s");
        assert_eq!(time_of(0, 0), "–");
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
        assert_eq!([12, 1_500, 2_000_000, 3_000_000_000].map(bytes), ["12 B", "1.50 kB", "2.00 MB", "3.00 GB"]);
        assert_eq!(
            (percent(0.905), rate(0.5), decimal(None)),
            ("90.5 %".to_owned(), "0.50/s".to_owned(), "–".to_owned())
        );
    }

    #[test]
    fn durations_follow_the_word_last() {
        let ms = [500, 1_000, 60_000, 90_000, 300_000].map(std::time::Duration::from_millis);
        assert_eq!(ms.map(words), ["500 ms", "1 s", "minute", "90 s", "5 minutes"]);
    }

    #[test]
    fn times_are_readable_and_machine_readable() {
        let expected = r#"<time datetime="2026-01-02T03:04:05Z">2026-01-02 03:04:05</time>"#;
        assert_eq!(when(1_767_323_045_000).into_string(), expected);
        assert_eq!(clock(1_767_323_045_000), "03:04:05");
        assert_eq!(when(u64::MAX).into_string(), "");
    }
}
