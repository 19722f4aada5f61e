//! The names under which requests are logged and counted.
//!
//! Clients choose methods and paths, but the number of these names is bounded: each is a time series of the metrics.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;

/// The name of requests that match no route.
pub(super) const UNMATCHED: &str = "unmatched";
/// The name of uncommon methods.
const OTHER: &str = "OTHER";

/// The route of a request.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// The method, if it is a common one.
    pub(super) method: &'static str,
    path: Option<MatchedPath>,
}

impl Route {
    pub(super) fn of(request: &Request) -> Self {
        Self { method: common(request.method()), path: request.extensions().get::<MatchedPath>().cloned() }
    }

    /// The path template, without ids.
    pub(super) fn path(&self) -> &str {
        self.path.as_ref().map_or(UNMATCHED, MatchedPath::as_str)
    }

    /// Returns method and path template, such as `GET /api/users/me`.
    pub(super) fn name(&self) -> String {
        if self.path.is_none() || self.method == OTHER {
            return UNMATCHED.to_owned();
        }
        format!("{} {}", self.method, self.path())
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
