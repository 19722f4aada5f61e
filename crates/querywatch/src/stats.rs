//! Durations of statements, since the start and in a sliding window.
//!
//! HDR histograms (<https://hdrhistogram.org>) of two significant digits store them: a percentile is at most 1 % off. The
//! window consists of [`SLOTS`] slots. The newest slot is a histogram; a closed slot is a list of its values.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::value_counts::ValueCounts;

/// Number of slots of the window.
pub(crate) const SLOTS: u64 = 30;
/// The longest recorded duration in microseconds, which bounds the histograms. Longer ones count as this.
const MAX_US: u64 = 3_600_000_000;

/// The number of statements of one or all shapes, and their durations in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Number of statements.
    pub calls: u64,
    /// Number of statements that failed or were cancelled.
    pub errors: u64,
    /// Statements per second.
    pub per_second: f64,
    /// Number of rows that the statements returned or changed; `None` if no driver reported it.
    pub rows: Option<u64>,
    /// The sum of the durations.
    pub total_us: u64,
    /// The median.
    pub p50_us: u64,
    /// The 95th percentile.
    pub p95_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The longest duration.
    pub max_us: u64,
}

/// The statistics of one slot of the window, for charts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Point {
    /// The start of the slot, in milliseconds since 1970.
    pub at_ms: u64,
    /// Number of statements.
    pub calls: u64,
    /// Number of statements that failed or were cancelled.
    pub errors: u64,
    /// The median in microseconds.
    pub p50_us: u64,
    /// The 99th percentile in microseconds.
    pub p99_us: u64,
}

/// Counters and a histogram.
#[derive(Debug, Default)]
pub(crate) struct SlotStats {
    calls: u64,
    errors: u64,
    rows: Option<u64>,
    nanos: u64,
    max_us: u64,
    /// Created with the first value. Grows with the longest value, up to 13 kB.
    histogram: Option<Histogram<u32>>,
}

impl SlotStats {
    fn record(&mut self, duration: Duration, is_error: bool, rows: Option<u64>) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(MAX_US).min(MAX_US);
        self.calls += 1;
        self.errors += u64::from(is_error);
        self.rows = add_rows(self.rows, rows);
        self.nanos = self.nanos.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        self.max_us = self.max_us.max(us);
        self.record_n(us, 1);
    }

    fn record_n(&mut self, us: u64, count: u32) {
        if self.histogram.is_none() {
            self.histogram = Histogram::new(2).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            // Only a histogram of fixed size rejects a value.
            let _ = histogram.record_n(us, count);
        }
    }

    fn add(&mut self, other: &Self) {
        self.count((other.calls, other.errors, other.rows), other.nanos, other.max_us);
        match (&mut self.histogram, &other.histogram) {
            (Some(own), Some(other)) => drop(own.add(other)),
            (own @ None, other) => own.clone_from(other),
            (Some(_), None) => {}
        }
    }

    fn count(&mut self, (calls, errors, rows): (u64, u64, Option<u64>), nanos: u64, max_us: u64) {
        self.calls += calls;
        self.errors += errors;
        self.rows = add_rows(self.rows, rows);
        self.nanos = self.nanos.saturating_add(nanos);
        self.max_us = self.max_us.max(max_us);
    }

    /// Resets the counters without releasing the memory.
    fn clear(&mut self) {
        (self.calls, self.errors, self.nanos, self.max_us) = (0, 0, 0, 0);
        self.rows = None;
        if let Some(histogram) = &mut self.histogram {
            histogram.reset();
        }
    }

    /// A histogram returns the end of a bucket, which may exceed the longest duration.
    fn percentile(&self, share: f64) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.value_at_quantile(share)).min(self.max_us)
    }

    fn stats(&self, over: Duration) -> Stats {
        #[expect(clippy::cast_precision_loss, reason = "52 bits are precise enough for a rate")]
        let per_second = if over.is_zero() { 0.0 } else { self.calls as f64 / over.as_secs_f64() };
        Stats {
            calls: self.calls,
            errors: self.errors,
            per_second,
            rows: self.rows,
            total_us: self.nanos / 1_000,
            p50_us: self.percentile(0.5),
            p95_us: self.percentile(0.95),
            p99_us: self.percentile(0.99),
            max_us: self.max_us,
        }
    }
}

/// Adds two numbers of rows, of which either may be unknown.
fn add_rows(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

/// A slot that is closed.
#[derive(Debug)]
struct ClosedSlot {
    slot: u64,
    calls: u32,
    errors: u32,
    rows: Option<u64>,
    nanos: u64,
    max_us: u32,
    /// Durations in microseconds and their counts.
    values: ValueCounts,
}

/// The durations of one shape.
#[derive(Debug, Default)]
pub(crate) struct DurationRecorder {
    since_start: SlotStats,
    slot: u64,
    newest: SlotStats,
    /// The closed slots that have statements, oldest first.
    closed: VecDeque<ClosedSlot>,
}

impl DurationRecorder {
    pub(crate) fn record(&mut self, slot: u64, duration: Duration, is_error: bool, rows: Option<u64>) {
        // A delayed thread may record an older slot.
        if slot > self.slot {
            self.close_slot(slot);
        }
        self.since_start.record(duration, is_error, rows);
        self.newest.record(duration, is_error, rows);
    }

    fn close_slot(&mut self, next: u64) {
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        if self.newest.calls > 0 {
            let histogram = self.newest.histogram.as_ref();
            let recorded = histogram.into_iter().flat_map(|histogram| histogram.iter_recorded());
            self.closed.push_back(ClosedSlot {
                slot: self.slot,
                calls: narrow(self.newest.calls),
                errors: narrow(self.newest.errors),
                rows: self.newest.rows,
                nanos: self.newest.nanos,
                max_us: narrow(self.newest.max_us),
                values: ValueCounts::new(recorded.map(|value| (value.value_iterated_to(), value.count_at_value()))),
            });
            self.newest.clear();
        }
        self.slot = next;
        while self.closed.front().is_some_and(|oldest| oldest.slot + SLOTS <= next) {
            self.closed.pop_front();
        }
    }
}

/// The merged durations of several shapes.
#[derive(Debug, Default)]
pub(crate) struct MergedStats {
    since_start: SlotStats,
    slots: BTreeMap<u64, SlotStats>,
}

/// The time of a read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadTime {
    pub(crate) slot: u64,
    pub(crate) slot_length: Duration,
    /// The time since the watch started.
    pub(crate) elapsed: Duration,
    /// The start of the watch, since 1970.
    pub(crate) started: Duration,
}

impl ReadTime {
    fn is_in_window(self, slot: u64) -> bool {
        slot + SLOTS > self.slot
    }
}

impl MergedStats {
    pub(crate) fn add(&mut self, recorder: &DurationRecorder, now: ReadTime) {
        self.slots.retain(|&slot, _| now.is_in_window(slot));
        self.since_start.add(&recorder.since_start);
        if now.is_in_window(recorder.slot) {
            self.slots.entry(recorder.slot).or_default().add(&recorder.newest);
        }
        for closed in recorder.closed.iter().filter(|closed| now.is_in_window(closed.slot)) {
            let stats = self.slots.entry(closed.slot).or_default();
            let counts = (closed.calls.into(), closed.errors.into(), closed.rows);
            stats.count(counts, closed.nanos, closed.max_us.into());
            for (us, count) in closed.values.iter() {
                stats.record_n(us, count);
            }
        }
    }

    pub(crate) fn add_merged(&mut self, other: &Self, now: ReadTime) {
        self.since_start.add(&other.since_start);
        for (&slot, stats) in other.slots.iter().filter(|(slot, _)| now.is_in_window(**slot)) {
            self.slots.entry(slot).or_default().add(stats);
        }
    }

    pub(crate) fn since_start(&self, now: ReadTime) -> Stats {
        self.since_start.stats(now.elapsed)
    }

    pub(crate) fn window(&self, now: ReadTime) -> Stats {
        let mut window = SlotStats::default();
        for (_, stats) in self.slots.iter().filter(|(slot, _)| now.is_in_window(**slot)) {
            window.add(stats);
        }
        // Starts with the first slot of the window, which may precede the watch.
        let first = now.slot_length * u32::try_from((now.slot + 1).saturating_sub(SLOTS)).unwrap_or(u32::MAX);
        window.stats(now.elapsed.saturating_sub(first))
    }

    /// Returns all slots of the window, including empty ones, oldest first.
    pub(crate) fn series(&self, now: ReadTime) -> Vec<Point> {
        let empty = SlotStats::default();
        let slots = (now.slot + 1).saturating_sub(SLOTS)..=now.slot;
        slots
            .map(|slot| {
                let stats = self.slots.get(&slot).unwrap_or(&empty);
                let start = now.started + now.slot_length * u32::try_from(slot).unwrap_or(u32::MAX);
                Point {
                    at_ms: u64::try_from(start.as_millis()).unwrap_or(u64::MAX),
                    calls: stats.calls,
                    errors: stats.errors,
                    p50_us: stats.percentile(0.5),
                    p99_us: stats.percentile(0.99),
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    fn now(slot: u64) -> ReadTime {
        let slot_length = Duration::from_secs(10);
        let elapsed = slot_length * u32::try_from(slot).unwrap() + Duration::from_secs(5);
        ReadTime { slot, slot_length, elapsed, started: Duration::from_secs(1_000) }
    }

    fn merged(recorder: &DurationRecorder, now: ReadTime) -> MergedStats {
        let mut merge = MergedStats::default();
        merge.add(recorder, now);
        merge
    }

    #[test]
    fn percentiles_are_one_percent_off_at_most() {
        let mut recorder = DurationRecorder::default();
        for time in 1..=1_000 {
            recorder.record(0, us(time * 100), time % 100 == 0, None);
        }
        let stats = merged(&recorder, now(0)).since_start(now(0));
        for (percentile, exact) in [(stats.p50_us, 50_000), (stats.p95_us, 95_000), (stats.p99_us, 99_000)] {
            assert!(percentile.abs_diff(exact) * 100 <= exact, "{percentile} is not about {exact}");
        }
        assert_eq!((stats.calls, stats.errors, stats.max_us, stats.total_us), (1_000, 10, 100_000, 50_050_000));
        assert!((stats.per_second - 200.0).abs() < 1e-9);
    }

    #[test]
    fn the_window_expires_and_the_total_does_not() {
        let mut recorder = DurationRecorder::default();
        recorder.record(0, us(10), true, None);
        recorder.record(3, us(20), false, None);
        recorder.record(3, us(30), false, None);
        let merge = merged(&recorder, now(3));
        assert_eq!(merge.window(now(3)).calls, 3);
        let series = merge.series(now(3));
        assert_eq!(
            series.iter().map(|point| (point.calls, point.errors, point.p50_us, point.p99_us)).collect::<Vec<_>>(),
            [(1, 1, 10, 10), (0, 0, 0, 0), (0, 0, 0, 0), (2, 0, 20, 30)]
        );
        assert_eq!((series[0].at_ms, series[3].at_ms), (1_000_000, 1_030_000));

        // No later statement closes the slot.
        let merge = merged(&recorder, now(32));
        assert_eq!((merge.window(now(32)).calls, merge.window(now(32)).max_us), (2, 30));
        assert_eq!((merge.since_start(now(32)).calls, merge.since_start(now(32)).max_us), (3, 30));
        assert_eq!(merge.series(now(32)).len(), 30);
        assert_eq!(merged(&recorder, now(33)).window(now(33)).calls, 0);

        recorder.record(40, us(5), false, None);
        assert_eq!(recorder.closed.len(), 0);
        assert_eq!(merged(&recorder, now(40)).window(now(40)).max_us, 5);
    }

    #[test]
    fn merging_keeps_the_slots() {
        let (mut one, mut other) = (DurationRecorder::default(), DurationRecorder::default());
        one.record(0, us(10), false, None);
        one.record(1, us(20), false, None);
        other.record(1, us(40), true, None);
        let mut sum = merged(&one, now(1));
        sum.add_merged(&merged(&other, now(1)), now(1));
        assert_eq!(sum.series(now(1)).iter().map(|point| point.calls).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(
            (sum.since_start(now(1)).calls, sum.since_start(now(1)).errors, sum.window(now(1)).max_us),
            (3, 1, 40)
        );
    }

    /// Closed slots are much smaller than histograms.
    #[test]
    fn the_readme_states_the_memory_of_a_busy_shape() {
        let mut recorder = DurationRecorder::default();
        let memory = allocation_counter::measure(|| {
            for slot in 0..SLOTS {
                // From 0.1 to 20 ms, most of them short.
                (0..5_000_u64).for_each(|n| recorder.record(slot, us(100 + (n % 141) * (n % 141)), false, None));
            }
        });
        assert!((10_000..30_000).contains(&memory.bytes_current), "{} bytes", memory.bytes_current);
    }

    #[test]
    fn durations_are_bounded() {
        let mut recorder = DurationRecorder::default();
        recorder.record(0, Duration::MAX, false, None);
        recorder.record(0, Duration::ZERO, false, None);
        let stats = merged(&recorder, now(0)).since_start(now(0));
        assert_eq!((stats.calls, stats.max_us, stats.p50_us), (2, MAX_US, 0));
    }
}
