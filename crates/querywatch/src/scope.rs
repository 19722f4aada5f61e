//! Scopes: groups of statements that are counted and evaluated together.

use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use crate::context::{self, CurrentScope};
use crate::report::Report;
use crate::routes::NO_ROUTE;
use crate::scope_state::ScopeState;
use crate::watch::Watch;

/// A group of statements that are counted and evaluated together: those of a request, a job or a test.
///
/// An inner scope has its own count and findings. Its statements also count for the outer scope, but the outer scope does
/// not search them for repetitions.
#[derive(Debug)]
#[must_use = "a scope counts nothing until it runs"]
pub struct Scope(ScopeState);

impl Scope {
    /// Creates a scope for a route, such as `GET /users/{id}`. Use the pattern, not the path: a watch distinguishes at
    /// most 1,000 routes.
    pub fn new(watch: &Watch, route: &str) -> Self {
        let route = watch.0.routes.id(route);
        Self(ScopeState::new(Some(Arc::clone(&watch.0)), route))
    }

    /// Creates a scope without a watch, whose findings appear only in its report. Intended for tests; see
    /// [`assert_budget!`](crate::assert_budget).
    pub fn unwatched() -> Self {
        Self(ScopeState::new(None, NO_ROUTE))
    }

    /// Sets the request id, which appears in logs and findings. Default: none.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.0.request_id = Some(id.into());
        self
    }

    /// Sets the trace, in the format of the header of that name
    /// ([W3C Trace Context](https://www.w3.org/TR/trace-context/#traceparent-header)), for
    /// [`sql_comment`](crate::sql_comment). Default: none.
    pub fn traceparent(mut self, trace: impl Into<String>) -> Self {
        self.0.traceparent = Some(trace.into());
        self
    }

    /// Sets the maximum number of statements. A scope that issues more has a finding. Default: unlimited.
    #[track_caller]
    pub fn budget(self, statements: u32) -> Self {
        self.0.set_budget((statements, Location::caller()));
        self
    }

    /// Sets the maximum number of statements, like [`budget`](Self::budget), and where it is set: for libraries that set the
    /// budgets of their callers.
    pub fn budget_set_at(self, statements: u32, location: &'static Location<'static>) -> Self {
        self.0.set_budget((statements, location));
        self
    }

    /// Runs a future and returns its output with a report of its statements. A scope that is dropped before its end
    /// still reports its findings.
    ///
    /// Tasks that the future spawns belong to the scope only if they are wrapped in [`in_current_scope`].
    pub async fn run<F: Future>(self, future: F) -> (F::Output, Report) {
        let guard = self.open();
        let output = context::run_in(Some(guard.current()), future).await;
        (output, guard.close())
    }

    /// Runs a closure and returns its output with a report of its statements. Works on any thread.
    pub fn run_sync<T>(self, work: impl FnOnce() -> T) -> (T, Report) {
        let guard = self.open();
        let output = context::run_in_sync(Some(guard.current()), work);
        (output, guard.close())
    }

    fn open(mut self) -> ScopeGuard {
        self.0.start(context::current().map(|outer| outer.state));
        ScopeGuard { state: Arc::new(self.0), is_closed: false }
    }
}

/// Closes the scope when it is dropped.
struct ScopeGuard {
    state: Arc<ScopeState>,
    is_closed: bool,
}

impl ScopeGuard {
    fn current(&self) -> CurrentScope {
        CurrentScope { state: Arc::clone(&self.state), allows_repeats: false }
    }

    fn close(mut self) -> Report {
        self.is_closed = true;
        let findings = self.state.close();
        Report::new(Arc::clone(&self.state), findings)
    }
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        if !self.is_closed {
            self.state.close();
        }
    }
}

/// Binds a future to the current scope, so that it can be spawned as a task.
pub fn in_current_scope<F: Future>(future: F) -> impl Future<Output = F::Output> {
    context::run_in(context::current(), future)
}

/// Binds a closure to the current scope, so that it can run on another thread, as with `spawn_blocking`.
pub fn in_current_scope_sync<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let current = context::current();
    move || context::run_in_sync(current, work)
}

/// Runs a future in which repetitions are no finding, for batches whose number has a constant bound. Its statements count
/// for the budget.
pub fn allow_repeats<F: Future>(future: F) -> impl Future<Output = F::Output> {
    context::run_in(current_with_repeats(), future)
}

/// Runs a closure in which repetitions are no finding; see [`allow_repeats`].
pub fn allow_repeats_sync<T>(work: impl FnOnce() -> T) -> T {
    context::run_in_sync(current_with_repeats(), work)
}

fn current_with_repeats() -> Option<CurrentScope> {
    context::current().map(|current| CurrentScope { allows_repeats: true, ..current })
}

/// Returns the number of statements that the current scope has issued so far, or `None` outside of every scope.
pub fn statement_count() -> Option<u32> {
    context::with_current(|current| current.state.statements())
}

/// Sets the route of the current scope, for routes that are known only within the scope. Does nothing outside of every
/// scope.
pub fn set_route(route: &str) {
    context::with_current(|current| current.state.set_route(route));
}

/// Sets the budget of the current scope. Does nothing outside of every scope.
#[track_caller]
pub fn set_budget(statements: u32) {
    let set_at = Location::caller();
    context::with_current(|current| current.state.set_budget((statements, set_at)));
}
