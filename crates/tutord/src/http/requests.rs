//! Counts and durations of requests, since the start and recently.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::recent::{Recent, RecentRoute};

/// The histogram buckets of request durations in seconds, from a cached read to a slow model.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// The counts of one route, which its requests need not look up by name. A count begins with its first request, so that
/// the metrics show no other routes.
#[derive(Debug, Default)]
pub(super) struct RouteCounts {
    ok: OnceLock<Counter>,
    times: OnceLock<(Histogram, RecentRoute)>,
}

/// Counts and durations of requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct Requests {
    /// The recent requests.
    pub(crate) recent: Arc<Recent>,
    answered: Family<Answered, Counter>,
    times: Family<Route, Histogram, fn() -> Histogram>,
    failed_bodies: Family<Route, Counter>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            recent: Arc::default(),
            answered: Family::default(),
            times: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            failed_bodies: Family::default(),
        }
    }
}

impl Requests {
    /// Counts a request by its route, such as `GET /api/users/me`.
    pub(super) fn count(&self, route: &str, counts: &RouteCounts, status: StatusCode, began: Instant, ended: Instant) {
        let took = ended.saturating_duration_since(began);
        let answered = || {
            let labels = Answered { route: route.to_owned(), status: status.as_u16() };
            self.answered.get_or_create(&labels).clone()
        };
        match status {
            StatusCode::OK => counts.ok.get_or_init(answered).inc(),
            _ => answered().inc(),
        };
        let (times, recent) = counts.times.get_or_init(|| {
            (self.times.get_or_create(&Route { route: route.to_owned() }).clone(), self.recent.route(route))
        });
        times.observe(took.as_secs_f64());
        self.recent.record(recent, status, ended, took);
    }

    /// Returns the number of requests that failed in the last five minutes.
    pub fn failed(&self) -> u64 {
        self.recent.overall().failed
    }

    /// Initializes the count of failed bodies of a streaming route: Prometheus needs a zero to detect the first
    /// increase.
    pub(crate) fn expect_body(&self, route: &str) {
        drop(self.failed_bodies.get_or_create(&Route { route: route.to_owned() }));
    }

    /// Counts a response as failed whose head was already sent.
    pub(crate) fn count_failed_body(&self, route: &str) {
        self.failed_bodies.get_or_create(&Route { route: route.to_owned() }).inc();
        self.recent.record_failed_body(route);
    }

    /// Adds the counts to a registry of metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("http_requests", "Requests with a response", self.answered.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request to the head of its response",
            Unit::Seconds,
            self.times.clone(),
        );
        let help = "Responses that failed after their head was sent";
        registry.register("http_bodies_failed", help, self.failed_bodies.clone());
    }
}
