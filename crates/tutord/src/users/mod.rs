//! Profiles, onboarding and learning preferences.

mod dto;
mod onboarding;
mod routes;
mod state;
mod streak;

pub use routes::{PROFILE_BUDGET, ROUTES, router};
pub use state::{Users, UsersState};
pub(crate) use streak::current_streak;
