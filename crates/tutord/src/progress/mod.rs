//! Progress: points, streaks, levels, achievements, leaderboards and the export.
//!
//! Everything is read from sums, which the transaction of each completion updates by the rules in
//! [`tutord_core::rules`].
//!
//! - `routes` and `wire`: the HTTP routes and their JSON;
//! - `service`: views of the sums;
//! - `leaderboard`: the top of a leaderboard, and a student's neighbourhood;
//! - `export`: the whole history as a streamed download;
//! - `upkeep`: background maintenance of leaderboards.

mod export;
mod leaderboard;
mod routes;
mod service;
mod upkeep;
mod wire;

pub(crate) use leaderboard::ENTRIES;
pub use routes::{
    ACHIEVEMENTS_BUDGET, AROUND_BUDGET, BUDGETS, HISTORY_BUDGET, LEADERBOARD_BUDGET, LEVEL_BUDGET, OPT_OUT_BUDGET,
    PROGRESS_BUDGET, SKILLS_BUDGET, STATISTICS_BUDGET, STREAK_BUDGET, USERS_BUDGETS, router,
};
pub(crate) use routes::{aliases, own_achievements};
pub(crate) use service::standing_streak;
pub(crate) use upkeep::spawn as spawn_upkeep;
