//! The findings so far; those alike are one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::events::Finding;
use crate::limiter::Limiter;

/// Distinct findings that are kept. When there are more, those go that were not seen for the longest time.
const MOST: usize = 200;

#[derive(Debug, Default)]
pub(crate) struct Findings {
    kept: Mutex<Vec<(Finding, Limiter)>>,
    count: AtomicU64,
}

impl Findings {
    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<(Finding, Limiter)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one to those of its kind, route and shape. What is known of these now; and, when it is to be logged, how many
    /// were not since the last.
    pub(crate) fn add(&self, new: Finding, now: Instant) -> (Finding, Option<u32>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.kept();
        let alike = |old: &Finding| old.kind == new.kind && old.route == new.route && old.shape == new.shape;
        let (mut entry, mut limiter) = match kept.iter().position(|(old, _)| alike(old)) {
            Some(at) => kept.swap_remove(at),
            None => {
                let coldest = kept.iter().enumerate().min_by_key(|(_, (old, _))| old.last_seen_ms).map(|(at, _)| at);
                if let Some(at) = coldest.filter(|_| kept.len() >= MOST) {
                    kept.swap_remove(at);
                }
                (Finding { scopes: 0, ..new.clone() }, Limiter::default())
            }
        };
        entry = Finding { scopes: entry.scopes + 1, first_seen_ms: entry.first_seen_ms, ..new };
        let logged = limiter.admit(now);
        kept.push((entry.clone(), limiter));
        (entry, logged)
    }

    /// The newest first.
    pub(crate) fn all(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.kept().iter().map(|(finding, _)| finding.clone()).collect();
        all.sort_by_key(|finding| std::cmp::Reverse(finding.last_seen_ms));
        all
    }

    /// How many there were, also of those that are no longer kept.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::FindingKind;

    fn finding(route: &str, at: u64) -> Finding {
        Finding {
            kind: FindingKind::NPlusOne,
            route: Some(route.to_owned()),
            request_id: None,
            shape: None,
            sql: None,
            calls: 9,
            limit: 5,
            first_call: None,
            last_call: None,
            scopes: 1,
            first_seen_ms: at,
            last_seen_ms: at,
        }
    }

    #[test]
    fn those_alike_are_one() {
        let (findings, now) = (Findings::default(), Instant::now());
        assert_eq!(findings.add(finding("a", 1), now).1, Some(0));
        findings.add(finding("b", 2), now);
        let (again, logged) = findings.add(finding("a", 3), now);
        assert_eq!((again.scopes, again.first_seen_ms, again.last_seen_ms, logged), (2, 1, 3, None));
        assert_eq!(findings.all().len(), 2);
        assert_eq!((findings.all()[0].route.as_deref(), findings.count()), (Some("a"), 3));
    }

    #[test]
    fn they_are_bounded() {
        let (findings, now) = (Findings::default(), Instant::now());
        for at in 0..500 {
            findings.add(finding(&at.to_string(), at), now);
        }
        assert_eq!((findings.all().len(), findings.count()), (MOST, 500));
        assert_eq!(findings.all()[0].last_seen_ms, 499);
    }
}
