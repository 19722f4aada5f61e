//! Plans of slow statements, requested in the background.
//!
//! Planning costs the database some work, so it is limited: one plan at a time, and one for each shape in ten minutes.
//! If the queue is full, a plan is skipped. The statement itself is never executed again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use querywatch::{Sink, SlowStatement};
use serde::Serialize;
use tokio::sync::Notify;
use utoipa::ToSchema;

use super::hints::hints;
use crate::app::App;

/// The interval after which the plan of a shape is refreshed.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The capacity of the queue of shapes that wait for their plan.
const MAX_QUEUED: usize = 16;
/// The maximum number of stored plans.
const MAX_KEPT: usize = 200;
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
    asked: Notify,
    taken: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Ids of shapes, oldest first.
    queue: VecDeque<String>,
    kept: HashMap<String, Kept>,
}

#[derive(Debug)]
struct Kept {
    asked_at: Instant,
    plan: Option<Plan>,
}

impl State {
    /// Returns `true` if the shape was queued.
    fn ask(&mut self, shape: &str, now: Instant) -> bool {
        let known = self.kept.get(shape);
        if known.is_some_and(|kept| now.saturating_duration_since(kept.asked_at) < INTERVAL)
            || self.queue.len() >= MAX_QUEUED
        {
            return false;
        }
        // The older plan stays until the new one is there.
        let plan = self.kept.remove(shape).and_then(|kept| kept.plan);
        if self.kept.len() >= MAX_KEPT
            && let Some(oldest) = self.kept.iter().min_by_key(|(_, kept)| kept.asked_at).map(|(id, _)| id.clone())
        {
            self.kept.remove(&oldest);
        }
        self.kept.insert(shape.to_owned(), Kept { asked_at: now, plan });
        self.queue.push_back(shape.to_owned());
        true
    }
}

impl Plans {
    /// Returns the plan of a shape by its id, or `None` if the shape was not slow recently or has no plan.
    pub fn plan(&self, shape: &str) -> Option<Plan> {
        self.state().kept.get(shape)?.plan.clone()
    }

    /// Waits until the plan of this shape is available.
    pub async fn until_known(&self, shape: &str) -> Plan {
        loop {
            let taken = self.0.taken.notified();
            tokio::pin!(taken);
            // From here on no plan is missed.
            taken.as_mut().enable();
            if let Some(plan) = self.plan(shape) {
                return plan;
            }
            taken.await;
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
            self.0.asked.notified().await;
        }
    }

    fn keep(&self, shape: &str, plan: Plan) {
        if let Some(kept) = self.state().kept.get_mut(shape) {
            kept.plan = Some(plan);
        }
        self.0.taken.notify_waiters();
    }
}

impl Sink for Plans {
    fn slow(&self, statement: &SlowStatement) {
        if self.state().ask(&statement.shape, Instant::now()) {
            self.0.asked.notify_one();
        }
    }
}

/// Starts the task that requests the plans, which ends at shutdown.
pub(crate) fn spawn(app: &App) {
    let app = app.clone();
    app.tasks.clone().spawn(async move {
        loop {
            let round = async {
                let shape = app.plans.next().await;
                take(&app, &shape).await;
            };
            tokio::select! {
                () = app.shutdown.cancelled() => return,
                () = round => {}
            }
        }
    });
}

async fn take(app: &App, shape: &str) {
    // The coldest shapes are no longer known.
    let Some(known) = app.watch.shape(shape) else { return };
    let sql = known.shape.sql;
    match app.operations.explain(&sql).await {
        Ok(Some(text)) => {
            let plan = Plan { hints: hints(&text), text };
            let hint = if plan.hints.is_empty() { "nothing stands out".to_owned() } else { plan.hints.join("; ") };
            let sql: String = sql.chars().take(LOGGED_SQL).collect();
            tracing::info!(shape, hint, sql, "recorded the plan of a slow statement");
            app.plans.keep(shape, plan);
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, shape, "could not get the plan of a slow statement"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_asked_for_once_in_ten_minutes() {
        let (mut state, began) = (State::default(), Instant::now());
        assert!(state.ask("a", began));
        assert!(!state.ask("a", began + INTERVAL / 2));
        assert!(state.ask("b", began), "others are not concerned");
        assert!(state.ask("a", began + INTERVAL));
        assert_eq!(state.queue, ["a", "b", "a"]);
    }

    #[test]
    fn what_finds_no_place_in_the_queue_may_ask_again() {
        let (mut state, now) = (State::default(), Instant::now());
        for shape in 0..MAX_QUEUED {
            assert!(state.ask(&shape.to_string(), now));
        }
        assert!(!state.ask("one more", now));
        state.queue.pop_front();
        assert!(state.ask("one more", now));
    }

    #[test]
    fn the_oldest_plans_go_first() {
        let (mut state, began) = (State::default(), Instant::now());
        for shape in 0..=MAX_KEPT {
            assert!(state.ask(&shape.to_string(), began + Duration::from_millis(shape.try_into().unwrap())));
            state.queue.clear();
        }
        assert_eq!(state.kept.len(), MAX_KEPT);
        assert!(!state.kept.contains_key("0") && state.kept.contains_key("1"));
    }

    #[test]
    fn the_older_plan_stays_until_there_is_a_newer() {
        let plan = |text: &str| Plan { text: text.to_owned(), hints: Vec::new() };
        let (plans, began) = (Plans::default(), Instant::now());
        assert!(plans.state().ask("a", began));
        assert_eq!(plans.plan("a"), None);
        plans.keep("a", plan("old"));
        assert!(plans.state().ask("a", began + INTERVAL));
        assert_eq!(plans.plan("a"), Some(plan("old")));
        plans.keep("a", plan("new"));
        assert_eq!(plans.plan("a"), Some(plan("new")));
        plans.keep("unknown", plan("x"));
        assert_eq!(plans.plan("unknown"), None);
    }
}
