//! Statement budgets: the maximum number of SQL statements of a request.
//!
//! Each feature declares the budgets next to its routes. A request that exceeds its budget is logged, counted and
//! listed, and fails a test.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::http::Method;

use crate::{auth, chat, exercises, ops, progress, users};

/// The method and the path of a route below its feature's prefix, and its statement budget, including authentication.
pub type Budget = (&'static str, &'static str, u32);

/// The additional statements with a cache: on a miss, a session is looked up as token, session and user.
const COLD_SESSION: u32 = 2;

static BUDGETS: LazyLock<HashMap<String, Vec<(&'static str, u32)>>> = LazyLock::new(|| {
    let mut budgets: HashMap<String, Vec<(&'static str, u32)>> = HashMap::new();
    for (prefix, features) in [
        ("/api/auth", auth::BUDGETS),
        ("/api/users", users::BUDGETS),
        ("/api/v1/users", users::BUDGETS),
        ("/api/users", progress::USERS_BUDGETS),
        ("/api/v1/users", progress::USERS_BUDGETS),
        ("/api/chat", chat::BUDGETS),
        ("/api/exercises", exercises::BUDGETS),
        ("/api/progress", progress::BUDGETS),
        ("/api", ops::BUDGETS),
        ("", ops::METRICS_BUDGETS),
    ] {
        for (method, path, statements) in features {
            budgets.entry(format!("{prefix}{path}")).or_default().push((method, *statements));
        }
    }
    budgets
});

/// Returns the budget of a route by its method and its routed path, or `None` for a route outside of the API.
pub fn budget(method: &Method, path: &str) -> Option<u32> {
    let (_, statements) = BUDGETS.get(path)?.iter().find(|(of, _)| *of == method.as_str())?;
    Some(statements + COLD_SESSION)
}
