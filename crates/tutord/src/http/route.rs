//! The names under which requests are logged and counted.
//!
//! Clients choose methods and paths, but the number of these names is bounded: each is a time series of the metrics.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use foldhash::fast::RandomState;

use super::etag;
use super::requests::RouteCounts;
use super::route_table::RouteTable;

/// The name of requests that match no route.
pub(super) const UNMATCHED: &str = "unmatched";
/// The name of uncommon methods.
const OTHER: &str = "OTHER";

/// A route, with what the middleware needs of it.
#[derive(Debug)]
pub(super) struct Route {
    /// The method, if it is a common one.
    pub(super) method: &'static str,
    /// The path template, without ids.
    pub(super) path: Box<str>,
    /// The method and the path template, such as `GET /api/users/me`.
    pub(super) name: Box<str>,
    /// The statement budget; `None` for a route outside of the API.
    pub(super) budget: Option<u32>,
    /// Set if the route waits for the model.
    pub(super) awaits_model: bool,
    /// Set if the responses have ETags.
    pub(super) has_etag: bool,
    /// The counts of the route's requests.
    pub(super) counts: RouteCounts,
}

impl Route {
    fn new(table: &RouteTable, method: &Method, matched: Option<&str>) -> Self {
        let (common, path) = (common(method), matched.unwrap_or(UNMATCHED));
        let name = match matched {
            Some(path) if common != OTHER => format!("{common} {path}"),
            _ => UNMATCHED.to_owned(),
        };
        Self {
            method: common,
            path: path.into(),
            name: name.into(),
            budget: table.budget(method, path),
            awaits_model: table.awaits_model(path),
            has_etag: *method == Method::GET && etag::PREFIXES.iter().any(|prefix| path.starts_with(prefix)),
            counts: RouteCounts::default(),
        }
    }
}

/// The routes of the API, made once.
#[derive(Debug)]
pub(super) struct Routes {
    table: Arc<RouteTable>,
    /// By path template: the routes of each method.
    known: HashMap<String, Vec<Arc<Route>>, RandomState>,
}

impl Routes {
    pub(super) fn new(table: Arc<RouteTable>) -> Self {
        let mut known: HashMap<String, Vec<Arc<Route>>, RandomState> = HashMap::default();
        for (method, path) in table.routes() {
            if let Ok(method) = method.parse() {
                known.entry(path.to_owned()).or_default().push(Arc::new(Route::new(&table, &method, Some(path))));
            }
        }
        Self { table, known }
    }

    /// Returns the route of a request.
    pub(super) fn of(&self, request: &Request) -> Arc<Route> {
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let method = request.method();
        let known = path.and_then(|path| self.known.get(path)?.iter().find(|route| route.method == method.as_str()));
        known.map_or_else(|| Arc::new(Route::new(&self.table, method, path)), Arc::clone)
    }
}

/// A method of any name may be sent.
fn common(method: &Method) -> &'static str {
    const COMMON: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    COMMON.into_iter().find(|common| *common == method.as_str()).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_methods_have_one_name() {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(common(&method.parse().unwrap()), method);
        }
        for method in ["TRACE", "get", "M0000001", &"X".repeat(10_000)] {
            assert_eq!(common(&method.parse().unwrap()), OTHER);
        }
    }
}
