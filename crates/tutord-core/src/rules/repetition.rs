//! The repetition of skipped exercises.

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
