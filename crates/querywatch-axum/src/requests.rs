//! The statements of requests: totals by route, and the newest requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use querywatch::{FindingKind, Report};

use crate::format;

/// The maximum number of routes. Further routes count together.
const MAX_ROUTES: usize = 200;
/// The maximum number of stored requests.
const MAX_REQUESTS: usize = 50;
/// The maximum number of shapes of a stored request.
const MAX_SHAPES: usize = 30;
/// The maximum length of a stored route, in characters.
const MAX_ROUTE_CHARS: usize = 200;
/// The name of the routes beyond [`MAX_ROUTES`].
const OTHER: &str = "(other routes)";

/// The statements of requests, by route and for each of the newest 50 requests; cheap to clone.
///
/// A [`WatchLayer`](crate::WatchLayer) writes it, a [`Dashboard`](crate::Dashboard) shows it. Memory is bounded: 200
/// routes, 50 requests, 30 shapes of a request, 120 characters of a shape. Requests without statements count for their
/// route, and are not stored. Requests whose client disconnects before the response are not recorded.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    routes: HashMap<Arc<str>, RouteTotals>,
    newest: VecDeque<Arc<Request>>,
    /// The number of the newest request.
    count: u64,
}

/// The requests of a route since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RouteTotals {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) statements: u64,
    /// The most statements of a request.
    pub(crate) most: u32,
    /// The statements of the newest request.
    pub(crate) newest: u32,
    pub(crate) db_us: u64,
    pub(crate) took_us: u64,
}

/// A stored request.
#[derive(Debug)]
pub(crate) struct Request {
    /// Counts requests from 1.
    pub(crate) number: u64,
    pub(crate) route: Arc<str>,
    pub(crate) request_id: Option<String>,
    /// `None` if the service failed without a response.
    pub(crate) status: Option<u16>,
    pub(crate) at_ms: u64,
    pub(crate) took_us: u64,
    pub(crate) db_us: u64,
    pub(crate) statements: u32,
    pub(crate) findings: Vec<FindingKind>,
    /// The most frequent shapes.
    pub(crate) shapes: Vec<ShapeHead>,
    /// The number of shapes beyond [`MAX_SHAPES`].
    pub(crate) more_shapes: usize,
}

/// The beginning of a shape and its calls in a request.
#[derive(Debug)]
pub(crate) struct ShapeHead {
    pub(crate) id: String,
    pub(crate) sql: String,
    pub(crate) calls: u32,
}

/// A finished request, before it is stored.
pub(crate) struct Finished<'a> {
    pub(crate) route: &'a str,
    pub(crate) request_id: Option<String>,
    pub(crate) status: Option<u16>,
    pub(crate) took: Duration,
    pub(crate) report: &'a Report,
}

impl Requests {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self, finished: Finished<'_>) {
        let Finished { route, request_id, status, took, report } = finished;
        let (took_us, db_us) = (micros(took), micros(report.db_time));
        let shapes = if report.statements > 0 { report.shapes() } else { Vec::new() };
        let mut log = self.log();
        let route = log.route(route);
        let totals = log.routes.entry(Arc::clone(&route)).or_default();
        totals.requests += 1;
        totals.failed += u64::from(status.is_none_or(|status| status >= 500));
        totals.statements += u64::from(report.statements);
        totals.most = totals.most.max(report.statements);
        totals.newest = report.statements;
        totals.db_us += db_us;
        totals.took_us += took_us;
        if report.statements == 0 {
            return;
        }
        log.count += 1;
        let request = Request {
            number: log.count,
            route,
            request_id,
            status,
            at_ms: format::now_ms(),
            took_us,
            db_us,
            statements: report.statements,
            findings: kinds(report),
            more_shapes: shapes.len().saturating_sub(MAX_SHAPES),
            shapes: shapes
                .into_iter()
                .take(MAX_SHAPES)
                .map(|shape| ShapeHead { id: shape.id, sql: format::head(&shape.sql), calls: shape.calls })
                .collect(),
        };
        if log.newest.len() >= MAX_REQUESTS {
            log.newest.pop_front();
        }
        log.newest.push_back(Arc::new(request));
    }

    /// Returns the routes that issued statements, those with the most statements per request first.
    pub(crate) fn routes(&self) -> Vec<(Arc<str>, RouteTotals)> {
        let mut routes: Vec<_> = self
            .log()
            .routes
            .iter()
            .filter(|(_, totals)| totals.statements > 0)
            .map(|(route, totals)| (Arc::clone(route), *totals))
            .collect();
        let order = |totals: &RouteTotals| totals.statements.saturating_mul(1_000) / totals.requests.max(1);
        routes.sort_by(|(one, a), (other, b)| order(b).cmp(&order(a)).then_with(|| one.cmp(other)));
        routes
    }

    /// Returns the stored requests, newest first.
    pub(crate) fn newest(&self) -> Vec<Arc<Request>> {
        self.log().newest.iter().rev().cloned().collect()
    }

    /// Returns a stored request by its number.
    pub(crate) fn request(&self, number: u64) -> Option<Arc<Request>> {
        self.log().newest.iter().find(|request| request.number == number).cloned()
    }
}

impl Log {
    /// Returns the name under which a route counts.
    fn route(&self, name: &str) -> Arc<str> {
        let end = name.char_indices().nth(MAX_ROUTE_CHARS).map_or(name.len(), |(end, _)| end);
        let name = name.get(..end).unwrap_or(OTHER);
        match self.routes.get_key_value(name) {
            Some((known, _)) => Arc::clone(known),
            None if self.routes.len() < MAX_ROUTES => name.into(),
            None => OTHER.into(),
        }
    }
}

/// Returns the kinds of a report's findings, each once.
fn kinds(report: &Report) -> Vec<FindingKind> {
    let mut kinds = Vec::new();
    for finding in &report.findings {
        if !kinds.contains(&finding.kind) {
            kinds.push(finding.kind);
        }
    }
    kinds
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use querywatch::Scope;

    use super::*;

    fn record(requests: &Requests, route: &str, status: Option<u16>) {
        let ((), report) = Scope::unwatched().run_sync(|| ());
        requests.record(Finished { route, request_id: None, status, took: Duration::from_millis(2), report: &report });
    }

    #[test]
    fn the_number_of_routes_is_bounded() {
        let requests = Requests::default();
        for number in 0..MAX_ROUTES + 50 {
            record(&requests, &format!("GET /{number}"), Some(200));
        }
        record(&requests, &"x".repeat(10_000), None);
        let log = requests.log();
        assert_eq!(log.routes.len(), MAX_ROUTES + 1);
        assert_eq!((log.routes[OTHER].requests, log.routes[OTHER].failed), (51, 1));
    }

    #[test]
    fn requests_without_statements_are_not_listed() {
        let requests = Requests::default();
        record(&requests, "GET /", Some(200));
        assert!(requests.routes().is_empty() && requests.newest().is_empty());
        assert_eq!(requests.log().routes["GET /"].requests, 1);
    }
}
