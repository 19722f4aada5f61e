//! Plans of slow statements, requested in the background.
//!
//! Planning costs the database some work. tutord therefore requests one plan at a time, and a plan of the same shape at
//! most once in ten minutes. If the queue is full, it skips the request. It never executes the statement again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use querywatch::{Sink, SlowStatement, Watch};
use serde::Serialize;
use tokio::sync::Notify;
use tutord_core::Operations;
use utoipa::ToSchema;

use super::hints::hints;
use crate::background::Background;

/// The minimum time between two plans of the same shape.
const MIN_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The capacity of the queue of shapes that wait for their plan.
const MAX_QUEUED: usize = 16;
/// The maximum number of stored plans.
const MAX_STORED: usize = 200;
/// The maximum length of a statement in the log, in characters.
const MAX_LOGGED_CHARS: usize = 200;

/// The plan of the statements of a shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Plan {
    /// The text of the plan, without values.
    pub text: String,
    /// Hints on expensive steps of the plan.
    pub hints: Vec<String>,
}

/// The collected plans; cheap to clone. Receives slow statements as a [`Sink`] of the watch.
#[derive(Debug, Clone, Default)]
pub struct Plans(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<PlanState>,
    queued: Notify,
    stored: Notify,
}

#[derive(Debug, Default)]
struct PlanState {
    /// Ids of shapes, oldest first.
    queue: VecDeque<String>,
    requests: HashMap<String, PlanRequest>,
}

#[derive(Debug)]
struct PlanRequest {
    requested_at: Instant,
    plan: Option<Plan>,
}

impl PlanState {
    /// Adds a shape to the queue. Returns `false` if its plan is recent or the queue is full.
    fn enqueue(&mut self, shape: &str, now: Instant) -> bool {
        let previous = self.requests.get(shape);
        if previous.is_some_and(|request| now.saturating_duration_since(request.requested_at) < MIN_INTERVAL)
            || self.queue.len() >= MAX_QUEUED
        {
            return false;
        }
        // The previous plan remains until the new one arrives.
        let plan = self.requests.remove(shape).and_then(|request| request.plan);
        if self.requests.len() >= MAX_STORED
            && let Some(oldest) =
                self.requests.iter().min_by_key(|(_, request)| request.requested_at).map(|(id, _)| id.clone())
        {
            self.requests.remove(&oldest);
        }
        self.requests.insert(shape.to_owned(), PlanRequest { requested_at: now, plan });
        self.queue.push_back(shape.to_owned());
        true
    }
}

impl Plans {
    /// Returns the latest plan of a shape by its id, or `None` if there is none.
    pub fn plan(&self, shape: &str) -> Option<Plan> {
        self.state().requests.get(shape)?.plan.clone()
    }

    /// Waits until a plan of this shape is stored.
    pub async fn until_known(&self, shape: &str) -> Plan {
        loop {
            let stored = self.0.stored.notified();
            tokio::pin!(stored);
            // Registers before the check, so that no plan is missed.
            stored.as_mut().enable();
            if let Some(plan) = self.plan(shape) {
                return plan;
            }
            stored.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, PlanState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> String {
        loop {
            if let Some(shape) = self.state().queue.pop_front() {
                return shape;
            }
            self.0.queued.notified().await;
        }
    }

    fn store(&self, shape: &str, plan: Plan) {
        if let Some(request) = self.state().requests.get_mut(shape) {
            request.plan = Some(plan);
        }
        self.0.stored.notify_waiters();
    }
}

impl Sink for Plans {
    fn on_slow_statement(&self, statement: &SlowStatement) {
        if self.state().enqueue(&statement.shape, Instant::now()) {
            self.0.queued.notify_one();
        }
    }
}

impl Plans {
    /// Spawns the task that requests the plans. The task ends at shutdown.
    pub(crate) fn spawn(&self, background: &Background, operations: Arc<dyn Operations>, watch: Watch) {
        let (plans, shutdown) = (self.clone(), background.shutdown.clone());
        background.spawn(async move {
            loop {
                let round = async {
                    let shape = plans.next().await;
                    plans.request(operations.as_ref(), &watch, &shape).await;
                };
                if shutdown.run_until_cancelled(round).await.is_none() {
                    return;
                }
            }
        });
    }

    /// Requests the plan of a shape from the database.
    async fn request(&self, operations: &dyn Operations, watch: &Watch, shape: &str) {
        // The watch may have evicted the shape.
        let Some(recorded) = watch.shape(shape) else { return };
        let sql = recorded.shape.sql;
        match operations.explain(&sql).await {
            Ok(Some(text)) => {
                let plan = Plan { hints: hints(&text), text };
                let hint =
                    if plan.hints.is_empty() { "the plan shows no problem".to_owned() } else { plan.hints.join("; ") };
                let sql: String = sql.chars().take(MAX_LOGGED_CHARS).collect();
                tracing::info!(shape, hint, sql, "recorded the plan of a slow statement");
                self.store(shape, plan);
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, shape, "could not record the plan of a slow statement"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_requested_once_in_ten_minutes() {
        let (mut state, began) = (PlanState::default(), Instant::now());
        assert!(state.enqueue("a", began));
        assert!(!state.enqueue("a", began + MIN_INTERVAL / 2));
        assert!(state.enqueue("b", began), "other shapes are independent");
        assert!(state.enqueue("a", began + MIN_INTERVAL));
        assert_eq!(state.queue, ["a", "b", "a"]);
    }

    #[test]
    fn a_shape_that_exceeds_the_queue_can_be_queued_later() {
        let (mut state, now) = (PlanState::default(), Instant::now());
        for shape in 0..MAX_QUEUED {
            assert!(state.enqueue(&shape.to_string(), now));
        }
        assert!(!state.enqueue("one more", now));
        state.queue.pop_front();
        assert!(state.enqueue("one more", now));
    }

    #[test]
    fn the_oldest_plans_are_evicted() {
        let (mut state, began) = (PlanState::default(), Instant::now());
        for shape in 0..=MAX_STORED {
            assert!(state.enqueue(&shape.to_string(), began + Duration::from_millis(shape.try_into().unwrap())));
            state.queue.clear();
        }
        assert_eq!(state.requests.len(), MAX_STORED);
        assert!(!state.requests.contains_key("0") && state.requests.contains_key("1"));
    }

    #[test]
    fn a_plan_remains_until_the_next_one_is_stored() {
        let plan = |text: &str| Plan { text: text.to_owned(), hints: Vec::new() };
        let (plans, began) = (Plans::default(), Instant::now());
        assert!(plans.state().enqueue("a", began));
        assert_eq!(plans.plan("a"), None);
        plans.store("a", plan("old"));
        assert!(plans.state().enqueue("a", began + MIN_INTERVAL));
        assert_eq!(plans.plan("a"), Some(plan("old")));
        plans.store("a", plan("new"));
        assert_eq!(plans.plan("a"), Some(plan("new")));
        plans.store("unknown", plan("x"));
        assert_eq!(plans.plan("unknown"), None);
    }
}
