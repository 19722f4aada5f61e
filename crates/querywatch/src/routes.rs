//! Numbers for routes, which are cheaper to count than names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Distinct routes; who puts ids into them must not fill the memory.
const MOST: usize = 1_000;
const OTHER: &str = "(other routes)";

/// A route's number.
pub(crate) type RouteId = u32;
/// Outside of every scope.
pub(crate) const NO_ROUTE: RouteId = 0;

#[derive(Debug, Default)]
pub(crate) struct Routes(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    ids: HashMap<Arc<str>, RouteId>,
    names: Vec<Arc<str>>,
}

impl Routes {
    pub(crate) fn id(&self, name: &str) -> RouteId {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if known.ids.len() < MOST || known.ids.contains_key(name) { name } else { OTHER };
        if let Some(id) = known.ids.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        known.names.push(Arc::clone(&name));
        let id = RouteId::try_from(known.names.len()).unwrap_or(NO_ROUTE);
        known.ids.insert(name, id);
        id
    }

    pub(crate) fn name(&self, id: RouteId) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        known.names.get(index).map(ToString::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_bounded() {
        let routes = Routes::default();
        let first = routes.id("/users");
        assert_eq!((routes.id("/users"), routes.name(first).as_deref()), (first, Some("/users")));
        for n in 0..2_000 {
            routes.id(&format!("/users/{n}"));
        }
        assert_eq!(routes.name(routes.id("/users/1999")).as_deref(), Some(OTHER));
        assert_eq!((routes.id("/users"), routes.name(NO_ROUTE)), (first, None));
    }
}
