//! Samples of interleaved rounds.

use std::collections::BTreeMap;
use std::time::Duration;

/// The distribution of the samples of all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Returns the quartiles.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let last = samples.len().saturating_sub(1);
            samples.get((last as f64 * quantile).round() as usize).copied().unwrap_or(f64::NAN)
        };
        Self { low: at(0.25), median: at(0.5), high: at(0.75) }
    }
}

/// The time of one operation in nanoseconds, for each variant and round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times(BTreeMap<&'static str, Vec<f64>>);

impl Times {
    pub(crate) fn add(&mut self, name: &'static str, took: Duration, operations: usize) {
        self.0.entry(name).or_default().push(took.as_nanos() as f64 / operations as f64);
    }

    /// Returns the time of one operation in nanoseconds. `None` if it was not measured.
    pub(crate) fn get(&self, name: &str) -> Option<Spread> {
        Some(Spread::of(self.0.get(name)?.clone()))
    }

    /// Returns the ratio of the speeds of two variants over the rounds: above 1, `name` is the faster.
    pub(crate) fn speed(&self, name: &str, than: &str) -> Option<Spread> {
        let (times, others) = (self.0.get(name)?, self.0.get(than)?);
        Some(Spread::of(times.iter().zip(others).map(|(time, other)| other / time).collect()))
    }
}

/// Returns a time with a unit.
pub(crate) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e5 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e6 => format!("{:.0} µs", ns / 1e3),
        ns if ns < 1e8 => format!("{:.1} ms", ns / 1e6),
        ns if ns < 1e9 => format!("{:.0} ms", ns / 1e6),
        ns => format!("{:.1} s", ns / 1e9),
    }
}

/// Returns median and quartiles with a unit.
pub(crate) fn times(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "—".to_owned(),
        |Spread { low, median, high }| format!("{} ({} to {})", time(median), time(low), time(high)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_compares_samples_of_the_same_round() {
        let mut times = Times::default();
        for (fast, slow) in [(10, 20), (100, 200), (1_000, 2_000)] {
            times.add("fast", Duration::from_nanos(fast), 1);
            times.add("slow", Duration::from_nanos(slow), 1);
        }
        assert_eq!(times.speed("fast", "slow"), Some(Spread { low: 2.0, median: 2.0, high: 2.0 }));
        assert_eq!(times.get("slow"), Some(Spread { low: 200.0, median: 200.0, high: 2_000.0 }));
        assert_eq!(times.speed("fast", "unknown"), None);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(
            [12.3, 1_234.0, 123_456.0, 1_234_567.0, 2e9].map(time),
            ["12 ns", "1.2 µs", "123 µs", "1.2 ms", "2.0 s"]
        );
    }
}
