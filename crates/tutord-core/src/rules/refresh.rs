//! The acceptance of refresh tokens.
//!
//! The refresh tokens of a session form generations. A log-in issues generation 0; an exchange issues a token of the
//! generation after the newest one of which a token was used. So two tabs that present one token at once, and a client that
//! repeats a request whose answer was lost, get tokens of one generation (siblings), and the first of them that is used
//! decides: the others, and all earlier generations, are retired when the grace has passed. Only a second client still holds
//! a retired token, so presenting one revokes the session (the reuse detection of RFC 9700, section 4.14.2, with a
//! generation in place of a single token).

use std::time::Duration;

use crate::time::Timestamp;

/// The maximum number of stored unused refresh tokens of a generation; the oldest are removed first.
pub const MAX_SIBLINGS: i64 = 16;
/// The number of generations of used refresh tokens that are stored. An older token is unknown instead of retired.
pub const MAX_GENERATIONS: i64 = 100;

/// The verdict on a refresh token that a client presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The token is the first used one of its generation; a new generation begins.
    First,
    /// The token is accepted; the current generation gets another token.
    Again,
    /// The token is retired; the session is revoked.
    Retired,
}

/// Returns the verdict on a token of `generation`, in a session whose newest used generation is `newest_used`.
///
/// `used` is set if this token was used before. `superseded_at` is the time of that use, or else of the first use of
/// another token of its generation.
pub fn decide(
    generation: i64,
    newest_used: i64,
    used: bool,
    superseded_at: Option<Timestamp>,
    now: Timestamp,
    grace: Duration,
) -> Verdict {
    if generation > newest_used {
        Verdict::First
    } else if (generation == newest_used && used) || superseded_at.is_some_and(|at| now <= at + grace) {
        Verdict::Again
    } else {
        Verdict::Retired
    }
}
