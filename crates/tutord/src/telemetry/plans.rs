//! Plans of slow statements, requested in the background.
//!
//! Planning costs the database some work, so it is limited: one plan at a time, and one for each shape in ten minutes.
//! If the queue is full, a plan is skipped. The statement itself is never executed again.

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

/// The interval after which the plan of a shape is refreshed.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The capacity of the queue of shapes that wait for their plan.
const MAX_QUEUED: usize = 16;
/// The maximum number of stored plans.
const MAX_STORED: usize = 200;
/// The maximum number of characters of a statement in the log.
const LOGGED_SQL: usize = 200;

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
    state: Mutex<State>,
    queued: Notify,
    stored: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Ids of shapes, oldest first.
    queue: VecDeque<String>,
    requests: HashMap<String, Request>,
}

#[derive(Debug)]
struct Request {
    requested_at: Instant,
    plan: Option<Plan>,
}

impl State {
    /// Returns `true` if the shape was queued.
    fn enqueue(&mut self, shape: &str, now: Instant) -> bool {
        let known = self.requests.get(shape);
        if known.is_some_and(|request| now.saturating_duration_since(request.requested_at) < INTERVAL)
            || self.queue.len() >= MAX_QUEUED
        {
            return false;
        }
        // The older plan stays until the new one is there.
        let plan = self.requests.remove(shape).and_then(|request| request.plan);
        if self.requests.len() >= MAX_STORED
            && let Some(oldest) =
                self.requests.iter().min_by_key(|(_, request)| request.requested_at).map(|(id, _)| id.clone())
        {
            self.requests.remove(&oldest);
        }
        self.requests.insert(shape.to_owned(), Request { requested_at: now, plan });
        self.queue.push_back(shape.to_owned());
        true
    }
}

impl Plans {
    /// Returns the plan of a shape by its id, or `None` if the shape was not slow recently or has no plan.
    pub fn plan(&self, shape: &str) -> Option<Plan> {
        self.state().requests.get(shape)?.plan.clone()
    }

    /// Waits until the plan of this shape is available.
    pub async fn until_known(&self, shape: &str) -> Plan {
        loop {
            let stored = self.0.stored.notified();
            tokio::pin!(stored);
            // From here on no plan is missed.
            stored.as_mut().enable();
            if let Some(plan) = self.plan(shape) {
                return plan;
            }
            stored.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
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
    fn slow(&self, statement: &SlowStatement) {
        if self.state().enqueue(&statement.shape, Instant::now()) {
            self.0.queued.notify_one();
        }
    }
}

impl Plans {
    /// Starts the task that requests the plans, which ends at shutdown.
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
        // The watch evicts the coldest shapes.
        let Some(known) = watch.shape(shape) else { return };
        let sql = known.shape.sql;
        match operations.explain(&sql).await {
            Ok(Some(text)) => {
                let plan = Plan { hints: hints(&text), text };
                let hint = if plan.hints.is_empty() { "nothing stands out".to_owned() } else { plan.hints.join("; ") };
                let sql: String = sql.chars().take(LOGGED_SQL).collect();
                tracing::info!(shape, hint, sql, "recorded the plan of a slow statement");
                self.store(shape, plan);
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, shape, "could not get the plan of a slow statement"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_asked_for_once_in_ten_minutes() {
        let (mut state, began) = (State::default(), Instant::now());
        assert!(state.enqueue("a", began));
        assert!(!state.enqueue("a", began + INTERVAL / 2));
        assert!(state.enqueue("b", began), "others are not concerned");
        assert!(state.enqueue("a", began + INTERVAL));
        assert_eq!(state.queue, ["a", "b", "a"]);
    }

    #[test]
    fn what_finds_no_place_in_the_queue_may_ask_again() {
        let (mut state, now) = (State::default(), Instant::now());
        for shape in 0..MAX_QUEUED {
            assert!(state.enqueue(&shape.to_string(), now));
        }
        assert!(!state.enqueue("one more", now));
        state.queue.pop_front();
        assert!(state.enqueue("one more", now));
    }

    #[test]
    fn the_oldest_plans_go_first() {
        let (mut state, began) = (State::default(), Instant::now());
        for shape in 0..=MAX_STORED {
            assert!(state.enqueue(&shape.to_string(), began + Duration::from_millis(shape.try_into().unwrap())));
            state.queue.clear();
        }
        assert_eq!(state.requests.len(), MAX_STORED);
        assert!(!state.requests.contains_key("0") && state.requests.contains_key("1"));
    }

    #[test]
    fn the_older_plan_stays_until_there_is_a_newer() {
        let plan = |text: &str| Plan { text: text.to_owned(), hints: Vec::new() };
        let (plans, began) = (Plans::default(), Instant::now());
        assert!(plans.state().enqueue("a", began));
        assert_eq!(plans.plan("a"), None);
        plans.store("a", plan("old"));
        assert!(plans.state().enqueue("a", began + INTERVAL));
        assert_eq!(plans.plan("a"), Some(plan("old")));
        plans.store("a", plan("new"));
        assert_eq!(plans.plan("a"), Some(plan("new")));
        plans.store("unknown", plan("x"));
        assert_eq!(plans.plan("unknown"), None);
    }
}
