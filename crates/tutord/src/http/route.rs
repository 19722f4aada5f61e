//! The names under which requests are logged and counted.
//!
//! Clients choose methods and paths. Of these names there is a bounded number: a metric keeps a series for each.

use axum::extract::{MatchedPath, Request};
use axum::http::Method;

/// The route of what no route answers.
pub(super) const UNMATCHED: &str = "unmatched";
/// The method of requests whose own is none that a route could have.
const OTHER: &str = "OTHER";

/// The route of a request.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// Its method where that is a common one.
    pub(super) method: &'static str,
    path: Option<MatchedPath>,
}

impl Route {
    pub(super) fn of(request: &Request) -> Self {
        Self { method: common(request.method()), path: request.extensions().get::<MatchedPath>().cloned() }
    }

    /// The template, never the path: ids would make every request a kind of its own.
    pub(super) fn path(&self) -> &str {
        self.path.as_ref().map_or(UNMATCHED, MatchedPath::as_str)
    }

    /// Method and path, such as `GET /api/users/me`.
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
