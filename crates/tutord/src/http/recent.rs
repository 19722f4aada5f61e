//! Counts and times of the requests of the last five minutes: rates, percentiles and charts for the dashboard.
//!
//! `/metrics` has counts since the start, from which Prometheus computes its own windows.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use hdrhistogram::Histogram;

use crate::http::error::is_failure;

/// The longest recorded duration in microseconds, which bounds the histograms; longer requests count as this long.
const LONGEST: u64 = 3_600_000_000;
/// The maximum number of separate routes; further routes count as [`OTHERS`].
const MAX_ROUTES: usize = 200;
const OTHERS: &str = "others";
/// The slots of all requests: 30 points of a chart.
const OVERALL: Span = Span { slots: 30, seconds: 10 };
/// The slots of a route: fewer, because each can take 10 kB.
const BY_ROUTE: Span = Span { slots: 5, seconds: 60 };

/// The number and length of the slots of a window.
#[derive(Debug, Clone, Copy)]
struct Span {
    slots: u64,
    seconds: u64,
}

/// Requests and their times in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RequestStats {
    pub(crate) answered: u64,
    /// Responses with a status from 400 to 499.
    pub(crate) refused: u64,
    /// Responses with a status from 500, except 501, and those whose body broke off.
    pub(crate) failed: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

/// A point of a chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RequestPoint {
    /// The begin of the slot, in milliseconds since 1970.
    pub(crate) at_ms: u64,
    pub(crate) stats: RequestStats,
}

/// Recent requests, in total and by route.
#[derive(Debug)]
pub(crate) struct Recent {
    began: Instant,
    began_at: Duration,
    all: Mutex<Window>,
    routes: RwLock<HashMap<String, Arc<Mutex<Window>>>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            began_at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            all: Mutex::new(Window::new(OVERALL)),
            routes: RwLock::default(),
        }
    }
}

/// The recent requests of one route.
#[derive(Debug)]
pub(super) struct RecentRoute(Arc<Mutex<Window>>);

impl Recent {
    pub(super) fn record(&self, route: &RecentRoute, status: StatusCode, ended: Instant, took: Duration) {
        let at = ended.saturating_duration_since(self.began);
        lock(&self.all).record(at, status, took);
        lock(&route.0).record(at, status, took);
    }

    /// Counts a response as failed that was recorded as answered when its head was sent.
    pub(crate) fn record_failed_body(&self, route: &str) {
        let at = self.began.elapsed();
        lock(&self.all).newest(at).failed += 1;
        lock(&self.route(route).0).newest(at).failed += 1;
    }

    /// Returns the requests of a route.
    pub(super) fn route(&self, route: &str) -> RecentRoute {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = routes.get(route) {
            return RecentRoute(Arc::clone(window));
        }
        drop(routes);
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let name = if routes.len() < MAX_ROUTES { route } else { OTHERS };
        let new = || Arc::new(Mutex::new(Window::new(BY_ROUTE)));
        RecentRoute(Arc::clone(routes.entry(name.to_owned()).or_insert_with(new)))
    }

    /// Returns the statistics of all requests of the window.
    pub(crate) fn overall(&self) -> RequestStats {
        lock(&self.all).stats(self.began.elapsed())
    }

    /// Returns all slots of the window, including empty ones, oldest first.
    pub(crate) fn series(&self) -> Vec<RequestPoint> {
        lock(&self.all).series(self.began.elapsed(), self.began_at)
    }

    /// Returns the routes with requests in the window, busiest first.
    pub(crate) fn by_route(&self) -> Vec<(String, RequestStats)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner).clone();
        let at = self.began.elapsed();
        // Lock one window at a time, so that requests do not wait until all have been read.
        let mut all: Vec<_> = routes.into_iter().map(|(route, window)| (route, lock(&window).stats(at))).collect();
        all.retain(|(_, stats)| stats.answered > 0);
        all.sort_by(|(name, stats), (other, others)| others.answered.cmp(&stats.answered).then(name.cmp(other)));
        all
    }
}

/// Locks the data. Ignores poisoning, because the counts are independent of each other.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Slot {
    number: u64,
    answered: u64,
    refused: u64,
    failed: u64,
    max_us: u64,
    /// The histogram, created with the first value; grows with the longest.
    times: Option<Histogram<u32>>,
}

impl Slot {
    fn record(&mut self, status: StatusCode, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(LONGEST).min(LONGEST);
        self.answered += 1;
        self.refused += u64::from(status.is_client_error());
        self.failed += u64::from(is_failure(status));
        self.max_us = self.max_us.max(us);
        if self.times.is_none() {
            self.times = Histogram::new(2).ok();
        }
        if let Some(times) = &mut self.times {
            // Fails only if the histogram can't grow.
            let _ = times.record(us);
        }
    }

    fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.failed += other.failed;
        self.max_us = self.max_us.max(other.max_us);
        match (&mut self.times, &other.times) {
            (Some(own), Some(other)) => drop(own.add(other)),
            (own @ None, other) => own.clone_from(other),
            (Some(_), None) => {}
        }
    }

    fn stats(&self, over: Duration) -> RequestStats {
        // A histogram returns the end of a bucket, which can lie after the longest time.
        let percentile = |share| self.times.as_ref().map_or(0, |times| times.value_at_quantile(share)).min(self.max_us);
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no 52 bits")]
        // A single request in the first milliseconds is not a rate of hundreds.
        let per_second = self.answered as f64 / over.as_secs_f64().max(1.0);
        RequestStats {
            answered: self.answered,
            refused: self.refused,
            failed: self.failed,
            per_second,
            p50_us: percentile(0.5),
            p95_us: percentile(0.95),
            p99_us: percentile(0.99),
            max_us: self.max_us,
        }
    }
}

#[derive(Debug)]
struct Window {
    span: Span,
    /// The slots with requests, oldest first.
    slots: VecDeque<Slot>,
}

impl Window {
    const fn new(span: Span) -> Self {
        Self { span, slots: VecDeque::new() }
    }

    /// Returns the first and the last slot of the window that ends at this time since the start.
    fn bounds(&self, at: Duration) -> (u64, u64) {
        let last = at.as_secs() / self.span.seconds;
        ((last + 1).saturating_sub(self.span.slots), last)
    }

    fn record(&mut self, at: Duration, status: StatusCode, took: Duration) {
        self.newest(at).record(status, took);
    }

    /// Returns the slot of this time since the start. A delayed thread can pass an older time, which counts in the
    /// newest slot.
    fn newest(&mut self, at: Duration) -> &mut Slot {
        let (first, number) = self.bounds(at);
        while self.slots.front().is_some_and(|oldest| oldest.number < first) {
            self.slots.pop_front();
        }
        match self.slots.pop_back() {
            Some(newest) if newest.number >= number => self.slots.push_back_mut(newest),
            older => {
                self.slots.extend(older);
                self.slots.push_back_mut(Slot { number, ..Slot::default() })
            }
        }
    }

    fn stats(&self, at: Duration) -> RequestStats {
        let (first, _) = self.bounds(at);
        let mut sum = Slot::default();
        self.slots.iter().filter(|slot| slot.number >= first).for_each(|slot| sum.add(slot));
        sum.stats(at.saturating_sub(Duration::from_secs(first * self.span.seconds)))
    }

    fn series(&self, at: Duration, began_at: Duration) -> Vec<RequestPoint> {
        let (first, last) = self.bounds(at);
        let empty = Slot::default();
        let length = Duration::from_secs(self.span.seconds);
        (first..=last)
            .map(|number| {
                let slot = self.slots.iter().find(|slot| slot.number == number).unwrap_or(&empty);
                let began = Duration::from_secs(number * self.span.seconds);
                let at_ms = u64::try_from((began_at + began).as_millis()).unwrap_or(u64::MAX);
                RequestPoint { at_ms, stats: slot.stats(at.saturating_sub(began).min(length)) }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn percentiles_and_errors_are_those_of_the_window() {
        let mut window = Window::new(BY_ROUTE);
        for time in 1..=1_000 {
            let status = if time % 100 == 0 { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
            window.record(seconds(time / 10), status, Duration::from_micros(time * 100));
        }
        window.record(seconds(100), StatusCode::NOT_FOUND, Duration::ZERO);
        let stats = window.stats(seconds(100));
        for (percentile, exact) in [(stats.p50_us, 50_000), (stats.p95_us, 95_000), (stats.p99_us, 99_000)] {
            assert!(percentile.abs_diff(exact) * 100 <= exact, "{percentile} is not about {exact}");
        }
        assert_eq!((stats.answered, stats.refused, stats.failed, stats.max_us), (1_001, 1, 10, 100_000));
        assert!((stats.per_second - 10.01).abs() < 1e-9, "{}", stats.per_second);
    }

    #[test]
    fn the_window_forgets() {
        let mut window = Window::new(OVERALL);
        window.record(seconds(5), StatusCode::OK, seconds(1));
        window.record(seconds(25), StatusCode::BAD_GATEWAY, seconds(2));
        let series = window.series(seconds(29), seconds(1_000));
        let points: Vec<_> = series.iter().map(|p| (p.at_ms, p.stats.answered, p.stats.failed)).collect();
        assert_eq!(points, [(1_000_000, 1, 0), (1_010_000, 0, 0), (1_020_000, 1, 1)]);
        assert!((series[0].stats.per_second - 0.1).abs() < 1e-9);

        assert_eq!(window.stats(seconds(300)).answered, 1);
        assert_eq!(window.series(seconds(300), Duration::ZERO).len(), 30);
        assert_eq!(window.stats(seconds(1_000)), RequestStats::default());
        window.record(seconds(1_000), StatusCode::OK, seconds(1));
        assert_eq!(window.slots.len(), 1);
    }

    #[test]
    fn routes_are_bounded() {
        let recent = Recent::default();
        for route in 0..MAX_ROUTES + 50 {
            recent.record(&recent.route(&route.to_string()), StatusCode::OK, Instant::now(), Duration::ZERO);
        }
        let routes = recent.by_route();
        assert_eq!(routes.len(), MAX_ROUTES + 1);
        assert_eq!((routes[0].0.as_str(), routes[0].1.answered), (OTHERS, 50));
        assert_eq!(recent.overall().answered, 250);
    }
}
