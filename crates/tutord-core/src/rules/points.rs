//! Points.

use crate::model::Difficulty;

/// Returns the points of a completion.
pub const fn points(difficulty: Difficulty) -> i32 {
    match difficulty {
        Difficulty::Easy => 10,
        Difficulty::Medium => 20,
        Difficulty::Hard => 30,
    }
}
