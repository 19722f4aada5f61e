//! Profiles, onboarding and learning preferences.

mod onboarding;
mod routes;
mod wire;

pub use routes::{BUDGETS, PROFILE_BUDGET, router};
