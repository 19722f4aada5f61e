//! Progress: points, streaks, levels, achievements, leaderboards and the export.
//!
//! Everything here is read from sums that are kept in the transaction of each completion; the rules are
//! [`tutord_store::rules`].
//!
//! - `routes` and `wire`: HTTP in and out;
//! - `service`: what is shown of the sums;
//! - `leaderboard`: top and neighbourhood;
//! - `export`: the whole history as a streamed download;
//! - `upkeep`: background work on leaderboards.

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
