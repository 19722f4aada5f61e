//! The rules by which completions become streaks, points, levels and achievements.
//!
//! Pure functions, shared by the transaction that stores a completion and by the recomputation, so that both give the
//! same results.

pub mod address;
pub mod level;
pub mod refresh;
pub mod streak;
mod summary;

pub use summary::reached;
pub use summary::{CompletedExercise, Standings, Summary, unlocks};

use crate::model::Difficulty;

/// Returns the points of a completion.
pub const fn points(difficulty: Difficulty) -> i32 {
    match difficulty {
        Difficulty::Easy => 10,
        Difficulty::Medium => 20,
        Difficulty::Hard => 30,
    }
}

/// Returns the number of days before a skipped exercise is offered again: 3, 7, 14, 30, then always 30. The growing
/// gaps follow spaced repetition (S. Leitner, "So lernt man lernen", 1972).
pub const fn skipped_for(skip_count: i32) -> i64 {
    match skip_count {
        ..=1 => 3,
        2 => 7,
        3 => 14,
        4.. => 30,
    }
}
