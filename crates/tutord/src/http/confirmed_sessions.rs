//! The sessions that were confirmed recently. Every request looks its session up, so a look-up takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::clock;

/// The number of places. A session has one place, and replaces the session before it.
const PLACES: usize = 1 << 17;
/// The unit of time, and the number of units for which a session counts as confirmed.
const UNIT: Duration = Duration::from_mins(1);
const UNITS: u16 = 10;

/// The sessions that were confirmed recently, at most [`PLACES`].
#[derive(Debug)]
pub(super) struct ConfirmedSessions {
    began: Instant,
    /// For each place: 48 bits of the token's hash, and the time of the confirmation in 16 bits.
    places: Box<[AtomicU64]>,
}

impl ConfirmedSessions {
    pub(super) fn new() -> Self {
        Self { began: clock::now(), places: (0..PLACES).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Records that the token with this hash belongs to a session.
    pub(super) fn confirm(&self, token: &[u8; 32]) {
        let (place, tag) = self.place(token);
        let entry = tag | u64::from(self.now());
        // Most requests find their session confirmed, and share the place with other cores.
        if place.load(Ordering::Relaxed) != entry {
            place.store(entry, Ordering::Relaxed);
        }
    }

    /// Returns `true` if the token with this hash was confirmed recently.
    pub(super) fn contains(&self, token: &[u8; 32]) -> bool {
        let (place, tag) = self.place(token);
        let entry = place.load(Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "the lower bits are the time")]
        let confirmed = entry as u16;
        entry & !u64::from(u16::MAX) == tag && self.now().wrapping_sub(confirmed) < UNITS
    }

    /// Returns the place of a token, and the bits of its hash that the place stores, which are not 0.
    fn place(&self, token: &[u8; 32]) -> (&AtomicU64, u64) {
        let number = |from: usize| token[from..from + 8].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let index = usize::try_from(number(0) % PLACES as u64).unwrap_or_default();
        (&self.places[index], (number(8) | 1 << 16) & !u64::from(u16::MAX))
    }

    /// Returns the time since the start. It wraps around after 45 days: a session that was confirmed then counts once more.
    fn now(&self) -> u16 {
        u16::try_from(clock::since(self.began).as_secs() / UNIT.as_secs() % (1 << 16)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_counts_for_some_minutes() {
        let sessions = ConfirmedSessions::new();
        let tokens: [[u8; 32]; 3] = [[0; 32], [7; 32], std::array::from_fn(|index| index.try_into().unwrap_or(0))];
        for token in &tokens {
            assert!(!sessions.contains(token));
            sessions.confirm(token);
            assert!(sessions.contains(token));
        }
        clock::advance(UNIT * 9);
        assert!(tokens.iter().all(|token| sessions.contains(token)));
        sessions.confirm(&tokens[1]);
        clock::advance(UNIT);
        assert_eq!(tokens.map(|token| sessions.contains(&token)), [false, true, false]);
    }

    #[test]
    fn a_session_replaces_another_one_and_is_not_taken_for_it() {
        let sessions = ConfirmedSessions::new();
        let (first, mut second) = ([7; 32], [7; 32]);
        second[9] = 8;
        sessions.confirm(&first);
        assert!(!sessions.contains(&second));
        sessions.confirm(&second);
        assert!(sessions.contains(&second) && !sessions.contains(&first));
    }
}
