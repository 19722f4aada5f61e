//! Numbers for routes, which are cheaper to compare than names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The maximum number of distinct routes, which bounds the memory if routes contain ids.
const MAX_ROUTES: usize = 1_000;
const OTHER: &str = "(other routes)";

/// The number of a route.
pub(crate) type RouteId = u32;
/// The id for statements outside of every scope.
pub(crate) const NO_ROUTE: RouteId = 0;

#[derive(Debug, Default)]
pub(crate) struct RouteTable(Mutex<RouteNames>);

#[derive(Debug, Default)]
struct RouteNames {
    ids: HashMap<Arc<str>, RouteId>,
    names: Vec<Arc<str>>,
}

impl RouteTable {
    /// Returns the id of a route, which is created if it is new.
    pub(crate) fn id(&self, name: &str) -> RouteId {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if table.ids.len() < MAX_ROUTES || table.ids.contains_key(name) { name } else { OTHER };
        if let Some(id) = table.ids.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        table.names.push(Arc::clone(&name));
        let id = RouteId::try_from(table.names.len()).unwrap_or(NO_ROUTE);
        table.ids.insert(name, id);
        id
    }

    /// Returns the name of a route.
    pub(crate) fn name(&self, id: RouteId) -> Option<String> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        table.names.get(index).map(ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_bounded() {
        let routes = RouteTable::default();
        let first = routes.id("/users");
        assert_eq!((routes.id("/users"), routes.name(first).as_deref()), (first, Some("/users")));
        for n in 0..2_000 {
            routes.id(&format!("/users/{n}"));
        }
        assert_eq!(routes.name(routes.id("/users/1999")).as_deref(), Some(OTHER));
        assert_eq!((routes.id("/users"), routes.name(NO_ROUTE)), (first, None));
    }
}
