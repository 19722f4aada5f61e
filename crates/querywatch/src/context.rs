//! The scope of the current task or thread.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collector::Collector;
use crate::events::Outcome;
use crate::registry::Shape;
use crate::routes::{NO_ROUTE, RouteId};
use crate::scope_state::ScopeState;
use crate::unscoped;

tokio::task_local! {
    static SCOPE: CurrentScope;
}

/// The scope of the current task or thread.
#[derive(Debug, Clone)]
pub(crate) struct CurrentScope {
    pub(crate) state: Arc<ScopeState>,
    /// Set if repetitions are allowed.
    pub(crate) allows_repeats: bool,
}

/// The route, request and trace of the current scope.
pub(crate) struct Origin {
    pub(crate) route: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) traceparent: Option<String>,
}

/// Returns the current scope, or `None` outside of every scope.
pub(crate) fn current() -> Option<CurrentScope> {
    SCOPE.try_with(Clone::clone).ok()
}

/// Calls a function with the current scope.
pub(crate) fn with_current<T>(read: impl FnOnce(&CurrentScope) -> T) -> Option<T> {
    SCOPE.try_with(read).ok()
}

/// The target of the spans of scopes, by which the layer for sqlx finds the scope of a worker thread.
#[cfg(feature = "sqlx")]
pub(crate) const SPAN_TARGET: &str = "querywatch::scope";

/// Creates the span of a scope.
#[cfg(feature = "sqlx")]
fn span(scope: &CurrentScope) -> tracing::Span {
    // The layer reads the scope when the span is created.
    SCOPE.sync_scope(scope.clone(), || tracing::trace_span!(target: SPAN_TARGET, "scope"))
}

/// Runs a future in a scope.
pub(crate) async fn run_in<F: Future>(scope: Option<CurrentScope>, future: F) -> F::Output {
    match scope {
        #[cfg(feature = "sqlx")]
        Some(scope) => tracing::Instrument::instrument(SCOPE.scope(scope.clone(), future), span(&scope)).await,
        #[cfg(not(feature = "sqlx"))]
        Some(scope) => SCOPE.scope(scope, future).await,
        None => future.await,
    }
}

/// Runs a closure in a scope.
pub(crate) fn run_in_sync<T>(scope: Option<CurrentScope>, work: impl FnOnce() -> T) -> T {
    match scope {
        #[cfg(feature = "sqlx")]
        Some(scope) => span(&scope).in_scope(|| SCOPE.sync_scope(scope.clone(), work)),
        #[cfg(not(feature = "sqlx"))]
        Some(scope) => SCOPE.sync_scope(scope, work),
        None => work(),
    }
}

pub(crate) fn origin() -> Option<Origin> {
    with_current(|CurrentScope { state, .. }| Origin {
        route: state.route_name(),
        request_id: state.request_id.clone(),
        traceparent: state.traceparent.clone(),
    })
}

/// Counts a statement in the current scope and the scopes around it. `parameters` is a hash of its values if they are
/// known.
pub(crate) fn count(collector: &Collector, shape: &Arc<Shape>, parameters: Option<u64>) {
    let counted = with_current(|current| {
        if current.allows_repeats || shape.allows_repeats || shape.is_transaction_control {
            current.state.count(shape);
        } else {
            current.state.count_repeat(shape, parameters, &collector.settings);
        }
        let mut outer = current.state.parent.as_ref();
        while let Some(state) = outer {
            state.count(shape);
            outer = state.parent.as_ref();
        }
    });
    if counted.is_none() {
        // Origins need a backtrace for each new statement.
        unscoped::add(&collector.unscoped, shape, collector.settings.capture_locations);
    }
}

/// Records a statement that ended.
pub(crate) fn complete(
    collector: &Arc<Collector>,
    shape: &Arc<Shape>,
    end: Instant,
    duration: Duration,
    outcome: Outcome,
    rows: Option<u64>,
) {
    let route = add_duration(collector, duration);
    let request_id = || with_current(|current| current.state.request_id.clone()).flatten();
    collector.record(shape, (end, duration, outcome), rows, route, request_id);
}

/// Adds the duration of a statement to the current scope and the scopes around it. Returns the route.
fn add_duration(collector: &Arc<Collector>, duration: Duration) -> RouteId {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let route = with_current(|current| {
        let mut scope = Some(&current.state);
        while let Some(state) = scope {
            state.add_nanos(nanos);
            scope = state.parent.as_ref();
        }
        current.state.route_in(collector)
    });
    route.unwrap_or(NO_ROUTE)
}
