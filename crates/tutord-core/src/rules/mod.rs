//! The rules by which completions become streaks, points, levels and achievements.
//!
//! Pure functions, shared by the transaction that stores a completion and by the recomputation, so that both give the
//! same results.

pub mod address;
pub mod level;
mod points;
pub mod refresh;
mod repetition;
pub mod streak;
mod summary;

pub use points::points;
pub use repetition::skipped_for;
pub use summary::{BoardValues, CompletedExercise, Summary, reached, unlocks};
