//! How long statements took, since the start and over a sliding window.
//!
//! Times are kept in HDR histograms (<https://hdrhistogram.org>) of two significant digits: a percentile is at most 1 %
//! off. The window is made of [`SLOTS`] slots. Only the newest is a histogram; a slot that is over is
//! kept as the values that occurred in it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::packed::Packed;

/// The slots of which the window is made.
pub(crate) const SLOTS: u64 = 30;
/// What takes longer counts as this long, which bounds the histograms. In microseconds.
const LONGEST: u64 = 3_600_000_000;

/// Statements of a shape, or of all, and their times in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Statements that ended, one way or the other.
    pub calls: u64,
    /// Those that failed or were cancelled.
    pub errors: u64,
    /// Calls each second.
    pub per_second: f64,
    /// The sum of their times.
    pub total_us: u64,
    /// The time within which half of them ended.
    pub p50_us: u64,
    /// The time within which 95 of 100 ended.
    pub p95_us: u64,
    /// The time within which 99 of 100 ended.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// A slot of the window: a point of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Point {
    /// When the slot began, in milliseconds since 1970.
    pub at_ms: u64,
    /// Statements that ended in it.
    pub calls: u64,
    /// Those that failed or were cancelled.
    pub errors: u64,
    /// The time within which half of them ended, in microseconds.
    pub p50_us: u64,
    /// The time within which 99 of 100 ended, in microseconds.
    pub p99_us: u64,
}

/// Counts and a histogram.
#[derive(Debug, Default)]
pub(crate) struct Dense {
    calls: u64,
    errors: u64,
    nanos: u64,
    max_us: u64,
    /// Made with the first value; grows to hold the longest, up to 13 kB.
    histogram: Option<Histogram<u32>>,
}

impl Dense {
    fn record(&mut self, took: Duration, failed: bool) {
        let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST).min(LONGEST);
        self.calls += 1;
        self.errors += u64::from(failed);
        self.nanos = self.nanos.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        self.max_us = self.max_us.max(us);
        self.record_n(us, 1);
    }

    fn record_n(&mut self, us: u64, count: u32) {
        if self.histogram.is_none() {
            self.histogram = Histogram::new(2).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            // Only a histogram that can't grow refuses a value.
            let _ = histogram.record_n(us, count);
        }
    }

    fn add(&mut self, other: &Self) {
        self.count(other.calls, other.errors, other.nanos, other.max_us);
        match (&mut self.histogram, &other.histogram) {
            (Some(own), Some(other)) => drop(own.add(other)),
            (own @ None, other) => own.clone_from(other),
            (Some(_), None) => {}
        }
    }

    fn count(&mut self, calls: u64, errors: u64, nanos: u64, max_us: u64) {
        self.calls += calls;
        self.errors += errors;
        self.nanos = self.nanos.saturating_add(nanos);
        self.max_us = self.max_us.max(max_us);
    }

    /// Forgets the counts, and keeps the memory.
    fn clear(&mut self) {
        (self.calls, self.errors, self.nanos, self.max_us) = (0, 0, 0, 0);
        if let Some(histogram) = &mut self.histogram {
            histogram.reset();
        }
    }

    /// A histogram says the end of a bucket, which may be after the longest time.
    fn percentile(&self, share: f64) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.value_at_quantile(share)).min(self.max_us)
    }

    fn stats(&self, over: Duration) -> Stats {
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 52 bits")]
        let per_second = if over.is_zero() { 0.0 } else { self.calls as f64 / over.as_secs_f64() };
        Stats {
            calls: self.calls,
            errors: self.errors,
            per_second,
            total_us: self.nanos / 1_000,
            p50_us: self.percentile(0.5),
            p95_us: self.percentile(0.95),
            p99_us: self.percentile(0.99),
            max_us: self.max_us,
        }
    }
}

/// A slot that is over.
#[derive(Debug)]
struct Sparse {
    slot: u64,
    calls: u32,
    errors: u32,
    nanos: u64,
    max_us: u32,
    /// Microseconds, and how often.
    values: Packed,
}

/// The times of one shape.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    ever: Dense,
    slot: u64,
    newest: Dense,
    /// Only those in which there was something, the oldest first.
    over: VecDeque<Sparse>,
}

impl Recorder {
    pub(crate) fn record(&mut self, slot: u64, took: Duration, failed: bool) {
        // A thread that was held up may come with an older slot.
        if slot > self.slot {
            self.end_slot(slot);
        }
        self.ever.record(took, failed);
        self.newest.record(took, failed);
    }

    fn end_slot(&mut self, next: u64) {
        let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        if self.newest.calls > 0 {
            let histogram = self.newest.histogram.as_ref();
            let recorded = histogram.into_iter().flat_map(|histogram| histogram.iter_recorded());
            self.over.push_back(Sparse {
                slot: self.slot,
                calls: narrow(self.newest.calls),
                errors: narrow(self.newest.errors),
                nanos: self.newest.nanos,
                max_us: narrow(self.newest.max_us),
                values: Packed::new(recorded.map(|value| (value.value_iterated_to(), value.count_at_value()))),
            });
            self.newest.clear();
        }
        self.slot = next;
        while self.over.front().is_some_and(|oldest| oldest.slot + SLOTS <= next) {
            self.over.pop_front();
        }
    }
}

/// The times of several shapes together.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    ever: Dense,
    slots: BTreeMap<u64, Dense>,
}

/// Where now is, for reading.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) slot: u64,
    pub(crate) slot_length: Duration,
    /// Since the watch began, which was at this time since 1970.
    pub(crate) elapsed: Duration,
    pub(crate) began: Duration,
}

impl Now {
    fn is_in_window(self, slot: u64) -> bool {
        slot + SLOTS > self.slot
    }
}

impl Merge {
    pub(crate) fn add(&mut self, recorder: &Recorder, now: Now) {
        self.slots.retain(|&slot, _| now.is_in_window(slot));
        self.ever.add(&recorder.ever);
        if now.is_in_window(recorder.slot) {
            self.slots.entry(recorder.slot).or_default().add(&recorder.newest);
        }
        for sparse in recorder.over.iter().filter(|sparse| now.is_in_window(sparse.slot)) {
            let dense = self.slots.entry(sparse.slot).or_default();
            dense.count(sparse.calls.into(), sparse.errors.into(), sparse.nanos, sparse.max_us.into());
            for (us, count) in sparse.values.iter() {
                dense.record_n(us, count);
            }
        }
    }

    pub(crate) fn add_merged(&mut self, other: &Self, now: Now) {
        self.ever.add(&other.ever);
        for (&slot, dense) in other.slots.iter().filter(|(slot, _)| now.is_in_window(**slot)) {
            self.slots.entry(slot).or_default().add(dense);
        }
    }

    pub(crate) fn ever(&self, now: Now) -> Stats {
        self.ever.stats(now.elapsed)
    }

    pub(crate) fn window(&self, now: Now) -> Stats {
        let mut window = Dense::default();
        for (_, dense) in self.slots.iter().filter(|(slot, _)| now.is_in_window(**slot)) {
            window.add(dense);
        }
        // From the beginning of its first slot, which may be before the watch's own.
        let first = now.slot_length * u32::try_from((now.slot + 1).saturating_sub(SLOTS)).unwrap_or(u32::MAX);
        window.stats(now.elapsed.saturating_sub(first))
    }

    /// All slots of the window, also the empty ones, the oldest first.
    pub(crate) fn series(&self, now: Now) -> Vec<Point> {
        let empty = Dense::default();
        let slots = (now.slot + 1).saturating_sub(SLOTS)..=now.slot;
        slots
            .map(|slot| {
                let dense = self.slots.get(&slot).unwrap_or(&empty);
                let began = now.began + now.slot_length * u32::try_from(slot).unwrap_or(u32::MAX);
                Point {
                    at_ms: u64::try_from(began.as_millis()).unwrap_or(u64::MAX),
                    calls: dense.calls,
                    errors: dense.errors,
                    p50_us: dense.percentile(0.5),
                    p99_us: dense.percentile(0.99),
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

    fn now(slot: u64) -> Now {
        let slot_length = Duration::from_secs(10);
        let elapsed = slot_length * u32::try_from(slot).unwrap() + Duration::from_secs(5);
        Now { slot, slot_length, elapsed, began: Duration::from_secs(1_000) }
    }

    fn merged(recorder: &Recorder, now: Now) -> Merge {
        let mut merge = Merge::default();
        merge.add(recorder, now);
        merge
    }

    #[test]
    fn percentiles_are_one_percent_off_at_most() {
        let mut recorder = Recorder::default();
        for time in 1..=1_000 {
            recorder.record(0, us(time * 100), time % 100 == 0);
        }
        let stats = merged(&recorder, now(0)).ever(now(0));
        for (percentile, exact) in [(stats.p50_us, 50_000), (stats.p95_us, 95_000), (stats.p99_us, 99_000)] {
            assert!(percentile.abs_diff(exact) * 100 <= exact, "{percentile} is not about {exact}");
        }
        assert_eq!((stats.calls, stats.errors, stats.max_us, stats.total_us), (1_000, 10, 100_000, 50_050_000));
        assert!((stats.per_second - 200.0).abs() < 1e-9);
    }

    #[test]
    fn the_window_forgets_and_the_whole_does_not() {
        let mut recorder = Recorder::default();
        recorder.record(0, us(10), true);
        recorder.record(3, us(20), false);
        recorder.record(3, us(30), false);
        let merge = merged(&recorder, now(3));
        assert_eq!(merge.window(now(3)).calls, 3);
        let series = merge.series(now(3));
        assert_eq!(
            series.iter().map(|point| (point.calls, point.errors, point.p50_us, point.p99_us)).collect::<Vec<_>>(),
            [(1, 1, 10, 10), (0, 0, 0, 0), (0, 0, 0, 0), (2, 0, 20, 30)]
        );
        assert_eq!((series[0].at_ms, series[3].at_ms), (1_000_000, 1_030_000));

        // Without a statement that would end the slot.
        let merge = merged(&recorder, now(32));
        assert_eq!((merge.window(now(32)).calls, merge.window(now(32)).max_us), (2, 30));
        assert_eq!((merge.ever(now(32)).calls, merge.ever(now(32)).max_us), (3, 30));
        assert_eq!(merge.series(now(32)).len(), 30);
        assert_eq!(merged(&recorder, now(33)).window(now(33)).calls, 0);

        recorder.record(40, us(5), false);
        assert_eq!(recorder.over.len(), 0);
        assert_eq!(merged(&recorder, now(40)).window(now(40)).max_us, 5);
    }

    #[test]
    fn what_was_merged_is_there_in_each_slot() {
        let (mut one, mut other) = (Recorder::default(), Recorder::default());
        one.record(0, us(10), false);
        one.record(1, us(20), false);
        other.record(1, us(40), true);
        let mut sum = merged(&one, now(1));
        sum.add_merged(&merged(&other, now(1)), now(1));
        assert_eq!(sum.series(now(1)).iter().map(|point| point.calls).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((sum.ever(now(1)).calls, sum.ever(now(1)).errors, sum.window(now(1)).max_us), (3, 1, 40));
    }

    /// Slots that are over are smaller than histograms by far.
    #[test]
    fn a_busy_shape_takes_the_memory_that_the_readme_says() {
        let mut recorder = Recorder::default();
        let memory = allocation_counter::measure(|| {
            for slot in 0..SLOTS {
                // From 0.1 to 20 ms, most of them short.
                (0..5_000_u64).for_each(|n| recorder.record(slot, us(100 + (n % 141) * (n % 141)), false));
            }
        });
        assert!((10_000..30_000).contains(&memory.bytes_current), "{} bytes", memory.bytes_current);
    }

    #[test]
    fn no_time_is_too_long() {
        let mut recorder = Recorder::default();
        recorder.record(0, Duration::MAX, false);
        recorder.record(0, Duration::ZERO, false);
        let stats = merged(&recorder, now(0)).ever(now(0));
        assert_eq!((stats.calls, stats.max_us, stats.p50_us), (2, LONGEST, 0));
    }
}
