//! Exercises: the daily exercise, the history, hints, submissions and completions.
//!
//! - `routes` and `dto`: the HTTP routes and their JSON;
//! - `catalogue`: exercises and achievements in files, checked before they are loaded;
//! - `daily`: the choice of the daily exercise;
//! - `service`: submit, hint, complete and skip;
//! - `generator`: requests to the model for exercises, grades and hints;
//! - `difficulty`: whether a student should get harder or easier exercises.

pub mod catalogue;
mod daily;
mod difficulty;
mod dto;
mod generator;
mod routes;
mod service;
mod state;

pub use routes::{
    COMPLETE_BUDGET, DAILY_BUDGET, DIFFICULTY_BUDGET, EXERCISE_BUDGET, HISTORY_BUDGET, PERFORMANCE_BUDGET, ROUTES,
    STEP_BUDGET, router,
};
pub use state::{Exercises, ExercisesState};
