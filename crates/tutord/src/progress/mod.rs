//! Progress: points, streaks, levels, achievements, leaderboards and the export.
//!
//! Everything is read from sums, which the transaction of each completion updates by the rules in
//! [`tutord_core::rules`].
//!
//! - `routes` and `dto`: the HTTP routes and their JSON;
//! - `service`: views of the sums;
//! - `leaderboard`: the top of a leaderboard, and a student's neighbourhood;
//! - `export`: the whole history as a streamed download;
//! - `maintenance`: background maintenance of leaderboards.

mod dto;
mod export;
mod leaderboard;
mod maintenance;
mod routes;
mod service;
mod state;

pub(crate) use maintenance::spawn as spawn_maintenance;
pub use routes::{
    ACHIEVEMENTS_BUDGET, AROUND_BUDGET, HISTORY_BUDGET, LEADERBOARD_BUDGET, LEVEL_BUDGET, OPT_OUT_BUDGET,
    PROGRESS_BUDGET, ROUTES, SKILLS_BUDGET, STATISTICS_BUDGET, STREAK_BUDGET, USERS_ROUTES, router,
};
pub(crate) use routes::{aliases, own_achievements};
pub use state::{Progress, ProgressState};
