//! Facts about routes: statement budgets, page bounds, and which routes wait for the model.
//!
//! Each feature declares these facts next to its routes, and attaches them where its routes are mounted. A request that
//! exceeds its budget is logged, counted and listed, and fails a test.

use std::collections::{HashMap, HashSet};

use axum::http::Method;

use super::pagination::Bounds;

/// The method and the path of a route below its feature's prefix, and its statement budget, including authentication.
pub type Budget = (&'static str, &'static str, u32);

/// The facts about the routes of a feature. Paths are those below the feature's prefix.
#[derive(Debug, Clone, Copy)]
pub struct RouteFacts {
    /// The statement budgets.
    pub budgets: &'static [Budget],
    /// The paths that wait for the model: its timeouts apply instead of the request's.
    pub awaits_model: &'static [&'static str],
    /// The page bounds of lists.
    pub pages: &'static [(&'static str, Bounds)],
}

impl RouteFacts {
    /// Facts without lists and without the model.
    pub const fn new(budgets: &'static [Budget]) -> Self {
        Self { budgets, awaits_model: &[], pages: &[] }
    }
}

/// The additional statements with a cache: a session that is not cached is read once more, to be cached.
const COLD_SESSION: u32 = 1;

/// The facts about all routes, by their routed path.
#[derive(Debug, Default)]
pub struct RouteTable {
    budgets: HashMap<String, Vec<(&'static str, u32)>>,
    awaits_model: HashSet<String>,
    pages: HashMap<String, Bounds>,
}

impl RouteTable {
    /// Adds the routes that are mounted at a prefix.
    pub fn mount(&mut self, prefix: &str, facts: &RouteFacts) {
        for (method, path, statements) in facts.budgets {
            self.budgets.entry(format!("{prefix}{path}")).or_default().push((method, *statements));
        }
        self.awaits_model.extend(facts.awaits_model.iter().map(|path| format!("{prefix}{path}")));
        self.pages.extend(facts.pages.iter().map(|(path, bounds)| (format!("{prefix}{path}"), *bounds)));
    }

    /// Returns the budget of a route, or `None` for a route outside of the API.
    pub fn budget(&self, method: &Method, path: &str) -> Option<u32> {
        let (_, statements) = self.budgets.get(path)?.iter().find(|(of, _)| *of == method.as_str())?;
        Some(statements + COLD_SESSION)
    }

    /// Returns the method and the path of all routes with a budget.
    pub(super) fn routes(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.budgets.iter().flat_map(|(path, methods)| methods.iter().map(|(method, _)| (*method, path.as_str())))
    }

    /// Returns `true` if a route waits for the model.
    pub fn awaits_model(&self, path: &str) -> bool {
        self.awaits_model.contains(path)
    }

    /// Returns the page bounds of a list.
    pub(super) fn pages(&self, path: &str) -> Option<&Bounds> {
        self.pages.get(path)
    }
}
