//! Scopes: on whose behalf statements are issued.

use std::backtrace::Backtrace;
use std::future::Future;
use std::panic::Location;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::events::{Finding, FindingKind, hex, unix_ms};
use crate::location;
use crate::registry::{IdMap, Shape};
use crate::report::{Report, ShapeCalls};
use crate::routes::{NO_ROUTE, RouteId};
use crate::watch::{Inner, Settings, Watch};

tokio::task_local! {
    static SCOPE: Current;
}

/// The scope of the current task.
#[derive(Clone)]
struct Current {
    scope: Arc<State>,
    /// Whether [`allow_repeats`] holds.
    repeats_allowed: bool,
}

fn current() -> Option<Current> {
    SCOPE.try_with(Clone::clone).ok()
}

/// Findings of the scopes within one that its report repeats.
const INNER_FINDINGS: usize = 100;

/// A request, a job, a test: what is done with some statements, which are counted and judged together.
///
/// A scope within another has its own count and findings; its statements also count for the outer one, but are not
/// searched there for repetitions.
#[derive(Debug)]
#[must_use = "nothing runs in it"]
pub struct Scope(State);

impl Scope {
    /// A scope with a route, such as `GET /users/{id}`: of those there should be few, so take the pattern, not the path.
    pub fn new(watch: &Watch, route: &str) -> Self {
        let route = watch.0.routes.id(route);
        Self(State::new(Some(Arc::clone(&watch.0)), route))
    }

    /// A scope without a watch: what is found is in its report alone. For tests, see [`assert_budget!`](crate::assert_budget).
    pub fn unwatched() -> Self {
        Self(State::new(None, NO_ROUTE))
    }

    /// An id by which the request is found elsewhere in the log. Default: none.
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.0.request_id = Some(id.into());
        self
    }

    /// The trace that it is a part of, as in the header of that name
    /// ([W3C Trace Context](https://www.w3.org/TR/trace-context/#traceparent-header)): for [`comment`](crate::comment). Default: none.
    pub fn traceparent(mut self, trace: impl Into<String>) -> Self {
        self.0.traceparent = Some(trace.into());
        self
    }

    /// The most statements it may issue. Default: any number.
    #[track_caller]
    pub fn budget(mut self, statements: u32) -> Self {
        self.0.book.get_mut().unwrap_or_else(PoisonError::into_inner).budget = Some((statements, Location::caller()));
        self
    }

    /// Runs a future, and says what it issued. When it is dropped before its end, its findings are reported all the same.
    ///
    /// Tasks that it spawns belong to it where they are wrapped in [`carry`].
    pub async fn run<F: Future>(self, future: F) -> (F::Output, Report) {
        let open = self.open();
        let output = SCOPE.scope(open.current(), future).await;
        (output, open.close())
    }

    /// [`run`](Self::run) without a future: for diesel's own connections, on any thread.
    pub fn run_sync<T>(self, work: impl FnOnce() -> T) -> (T, Report) {
        let open = self.open();
        let output = SCOPE.sync_scope(open.current(), work);
        (output, open.close())
    }

    fn open(mut self) -> Open {
        self.0.parent = current().map(|outer| outer.scope);
        Open(Some(Arc::new(self.0)))
    }
}

/// Closes the scope when it is dropped.
struct Open(Option<Arc<State>>);

impl Open {
    fn current(&self) -> Current {
        let scope = self.0.clone().unwrap_or_else(|| Arc::new(State::new(None, NO_ROUTE)));
        Current { scope, repeats_allowed: false }
    }

    fn close(mut self) -> Report {
        let scope = self.0.take().unwrap_or_else(|| Arc::new(State::new(None, NO_ROUTE)));
        let findings = scope.close();
        Report::new(scope, findings)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(scope) = self.0.take() {
            scope.close();
        }
    }
}

/// Takes the current scope along into a task that is about to be spawned.
pub fn carry<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(current(), future)
}

/// [`carry`] for a closure, such as one for `spawn_blocking`.
pub fn carry_sync<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let current = current();
    move || match current {
        Some(current) => SCOPE.sync_scope(current, work),
        None => work(),
    }
}

/// Within it, repetitions are no finding: for batches whose number is bounded by a constant. They count for the budget.
pub fn allow_repeats<F: Future>(future: F) -> impl Future<Output = F::Output> {
    within(current().map(|current| Current { repeats_allowed: true, ..current }), future)
}

/// [`allow_repeats`] without a future.
pub fn allow_repeats_sync<T>(work: impl FnOnce() -> T) -> T {
    match current() {
        Some(current) => SCOPE.sync_scope(Current { repeats_allowed: true, ..current }, work),
        None => work(),
    }
}

async fn within<F: Future>(current: Option<Current>, future: F) -> F::Output {
    match current {
        Some(current) => SCOPE.scope(current, future).await,
        None => future.await,
    }
}

/// How many statements the current scope issued so far; `None` outside of every scope.
pub fn issued() -> Option<u32> {
    SCOPE.try_with(|current| AtomicU32::load(&current.scope.statements, Ordering::Relaxed)).ok()
}

/// Changes the current scope's route, where it becomes known within the scope alone. Nothing happens outside of every scope.
pub fn set_route(route: &str) {
    if let Some(Current { scope, .. }) = current() {
        let route = scope.watch.as_ref().map_or(NO_ROUTE, |watch| watch.routes.id(route));
        scope.route.store(route, Ordering::Relaxed);
    }
}

/// Changes the current scope's budget. Nothing happens outside of every scope.
#[track_caller]
pub fn set_budget(statements: u32) {
    if let Some(Current { scope, .. }) = current() {
        scope.book().budget = Some((statements, Location::caller()));
    }
}

/// Counts a statement for the current scope and those around it. `parameters` is a hash of its values where they are known.
pub(crate) fn count(shape: &Arc<Shape>, parameters: Option<u64>, settings: &Settings) {
    let _ = SCOPE.try_with(|current| {
        let may_repeat = current.repeats_allowed || shape.may_repeat || shape.transaction_control;
        current.scope.count(shape, |seen| {
            if !may_repeat {
                seen.repeat(parameters, settings);
            }
        });
        let mut outer = current.scope.parent.as_ref();
        while let Some(scope) = outer {
            scope.count(shape, |_| {});
            outer = scope.parent.as_ref();
        }
    });
}

/// Adds the time of a statement to the current scope and those around it; the route, when it is of the same watch.
pub(crate) fn took(watch: &Arc<Inner>, time: Duration) -> RouteId {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let route = SCOPE.try_with(|current| {
        let mut scope = Some(&current.scope);
        while let Some(state) = scope {
            state.nanos.fetch_add(nanos, Ordering::Relaxed);
            scope = state.parent.as_ref();
        }
        let same = current.scope.watch.as_ref().is_some_and(|own| Arc::ptr_eq(own, watch));
        if same { AtomicU32::load(&current.scope.route, Ordering::Relaxed) } else { NO_ROUTE }
    });
    route.unwrap_or(NO_ROUTE)
}

pub(crate) fn request_id() -> Option<String> {
    SCOPE.try_with(|current| current.scope.request_id.clone()).ok().flatten()
}

/// Who issues statements now.
pub(crate) struct Origin {
    pub(crate) route: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) traceparent: Option<String>,
}

pub(crate) fn origin() -> Option<Origin> {
    SCOPE
        .try_with(|Current { scope, .. }| Origin {
            route: scope.route_name(),
            request_id: scope.request_id.clone(),
            traceparent: scope.traceparent.clone(),
        })
        .ok()
}

/// What a scope counts.
#[derive(Debug)]
pub(crate) struct State {
    watch: Option<Arc<Inner>>,
    parent: Option<Arc<Self>>,
    route: AtomicU32,
    request_id: Option<String>,
    traceparent: Option<String>,
    statements: AtomicU32,
    nanos: AtomicU64,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    budget: Option<(u32, &'static Location<'static>)>,
    seen: IdMap<Seen>,
    inner_findings: Vec<Finding>,
}

/// The statements of one shape.
#[derive(Debug)]
struct Seen {
    shape: Arc<Shape>,
    calls: u32,
    /// Those of the calls that are searched for repetitions.
    repeats: u32,
    limit: u32,
    parameters: Parameters,
    first: Option<Box<Backtrace>>,
    last: Option<Box<Backtrace>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parameters {
    None,
    Same(u64),
    Distinct,
}

impl Seen {
    fn repeat(&mut self, parameters: Option<u64>, settings: &Settings) {
        self.repeats += 1;
        self.limit = settings.repeat_limit;
        self.parameters = match (self.parameters, parameters) {
            (Parameters::None, Some(new)) => Parameters::Same(new),
            (Parameters::Same(old), Some(new)) if old == new => Parameters::Same(old),
            _ => Parameters::Distinct,
        };
        if !settings.locations {
            return;
        }
        if self.repeats == 1 {
            self.first = Some(Box::new(Backtrace::force_capture()));
        } else if self.repeats > self.limit {
            self.last = Some(Box::new(Backtrace::force_capture()));
        }
    }
}

impl State {
    fn new(watch: Option<Arc<Inner>>, route: RouteId) -> Self {
        Self {
            watch,
            parent: None,
            route: AtomicU32::new(route),
            request_id: None,
            traceparent: None,
            statements: AtomicU32::new(0),
            nanos: AtomicU64::new(0),
            book: Mutex::default(),
        }
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route_name(&self) -> Option<String> {
        let route = AtomicU32::load(&self.route, Ordering::Relaxed);
        self.watch.as_ref().and_then(|watch| watch.routes.name(route))
    }

    fn count(&self, shape: &Arc<Shape>, judge: impl FnOnce(&mut Seen)) {
        self.statements.fetch_add(1, Ordering::Relaxed);
        let mut book = self.book();
        let seen = book.seen.entry(shape.id).or_insert_with(|| Seen {
            shape: Arc::clone(shape),
            calls: 0,
            repeats: 0,
            limit: 0,
            parameters: Parameters::None,
            first: None,
            last: None,
        });
        seen.calls += 1;
        judge(seen);
    }

    pub(crate) fn statements(&self) -> u32 {
        AtomicU32::load(&self.statements, Ordering::Relaxed)
    }

    pub(crate) fn time(&self) -> Duration {
        Duration::from_nanos(AtomicU64::load(&self.nanos, Ordering::Relaxed))
    }

    /// The shapes, the most frequent first.
    pub(crate) fn shapes(&self) -> Vec<ShapeCalls> {
        let book = self.book();
        let mut shapes: Vec<ShapeCalls> = book
            .seen
            .values()
            .map(|seen| ShapeCalls { id: hex(seen.shape.id), sql: seen.shape.sql.to_string(), calls: seen.calls })
            .collect();
        shapes.sort_by(|one, other| (other.calls, &one.sql).cmp(&(one.calls, &other.sql)));
        shapes
    }

    /// Judges the scope and reports what it finds.
    fn close(&self) -> Vec<Finding> {
        let own = self.judge();
        for finding in &own {
            if let Some(watch) = &self.watch {
                watch.found(finding.clone());
            }
        }
        let mut all = std::mem::take(&mut self.book().inner_findings);
        all.extend(own);
        all.truncate(INNER_FINDINGS);
        if let Some(parent) = &self.parent {
            let mut book = parent.book();
            let room = INNER_FINDINGS.saturating_sub(book.inner_findings.len());
            book.inner_findings.extend(all.iter().take(room).cloned());
        }
        all
    }

    fn judge(&self) -> Vec<Finding> {
        let now = unix_ms();
        let blank = Finding {
            kind: FindingKind::NPlusOne,
            route: self.route_name(),
            request_id: self.request_id.clone(),
            shape: None,
            sql: None,
            calls: 0,
            limit: 0,
            first_call: None,
            last_call: None,
            scopes: 1,
            first_seen_ms: now,
            last_seen_ms: now,
        };
        let mut book = self.book();
        let mut findings = Vec::new();
        for seen in book.seen.values_mut().filter(|seen| seen.repeats > seen.limit) {
            findings.push(Finding {
                kind: match seen.parameters {
                    Parameters::Same(_) => FindingKind::RepeatedQuery,
                    Parameters::None | Parameters::Distinct => FindingKind::NPlusOne,
                },
                shape: Some(hex(seen.shape.id)),
                sql: Some(seen.shape.sql.to_string()),
                calls: seen.repeats,
                limit: seen.limit,
                first_call: seen.first.take().and_then(|trace| location::of(&trace)),
                last_call: seen.last.take().and_then(|trace| location::of(&trace)),
                ..blank.clone()
            });
        }
        if let Some((limit, set_at)) = book.budget.filter(|(limit, _)| self.statements() > *limit) {
            findings.push(Finding {
                kind: FindingKind::BudgetExceeded,
                calls: self.statements(),
                limit,
                first_call: Some(set_at.to_string()),
                ..blank
            });
        }
        findings
    }
}
