//! Exercises: the day's, the history, and the way of one from the first hint to its completion.
//!
//! - `routes` and `wire`: HTTP in and out;
//! - `catalogue`: exercises and achievements in files, checked before they are loaded;
//! - `daily`: which exercise is the day's;
//! - `service`: submit, hint, complete and skip;
//! - `writer`: what the model is asked for: exercises, grades and hints;
//! - `difficulty`: whether a student should get harder or easier exercises.

pub mod catalogue;
mod daily;
mod difficulty;
mod routes;
mod service;
mod wire;
mod writer;

pub(crate) use routes::HISTORY;
pub use routes::{
    AWAIT_MODEL, BUDGETS, COMPLETE_BUDGET, DAILY_BUDGET, DIFFICULTY_BUDGET, EXERCISE_BUDGET, HISTORY_BUDGET,
    PERFORMANCE_BUDGET, STEP_BUDGET, router,
};
