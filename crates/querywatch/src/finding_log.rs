//! The findings of a watch, merged by kind, route and shape.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::events::Finding;
use crate::log_limiter::LogLimiter;

/// The maximum number of distinct findings. Above it, the log evicts the least recently seen ones.
const MAX_FINDINGS: usize = 200;

#[derive(Debug, Default)]
pub(crate) struct FindingLog {
    entries: Mutex<Vec<(Finding, LogLimiter)>>,
    count: AtomicU64,
}

impl FindingLog {
    fn entries(&self) -> std::sync::MutexGuard<'_, Vec<(Finding, LogLimiter)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Merges a finding into the entry of its kind, route and shape. Returns the merged finding and, if it may be logged,
    /// the number of suppressed log lines.
    pub(crate) fn add(&self, new: Finding, now: Instant) -> (Finding, Option<u32>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut entries = self.entries();
        let is_same = |old: &Finding| old.kind == new.kind && old.route == new.route && old.shape == new.shape;
        let (mut entry, mut limiter) = match entries.iter().position(|(old, _)| is_same(old)) {
            Some(at) => entries.swap_remove(at),
            None => {
                let coldest = entries.iter().enumerate().min_by_key(|(_, (old, _))| old.last_seen_ms).map(|(at, _)| at);
                if let Some(at) = coldest.filter(|_| entries.len() >= MAX_FINDINGS) {
                    entries.swap_remove(at);
                }
                (Finding { scopes: 0, ..new.clone() }, LogLimiter::default())
            }
        };
        entry = Finding { scopes: entry.scopes + 1, first_seen_ms: entry.first_seen_ms, ..new };
        let suppressed = limiter.try_acquire(now);
        entries.push((entry.clone(), limiter));
        (entry, suppressed)
    }

    /// Returns the findings, newest first.
    pub(crate) fn all(&self) -> Vec<Finding> {
        let mut all: Vec<Finding> = self.entries().iter().map(|(finding, _)| finding.clone()).collect();
        all.sort_by_key(|finding| std::cmp::Reverse(finding.last_seen_ms));
        all
    }

    /// Returns the number of findings, including the evicted ones.
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
            route: Some(route.to_owned()),
            first_seen_ms: at,
            last_seen_ms: at,
            ..Finding::new(FindingKind::NPlusOne)
        }
    }

    #[test]
    fn findings_of_one_kind_route_and_shape_are_merged() {
        let (findings, now) = (FindingLog::default(), Instant::now());
        assert_eq!(findings.add(finding("a", 1), now).1, Some(0));
        findings.add(finding("b", 2), now);
        let (again, logged) = findings.add(finding("a", 3), now);
        assert_eq!((again.scopes, again.first_seen_ms, again.last_seen_ms, logged), (2, 1, 3, None));
        assert_eq!(findings.all().len(), 2);
        assert_eq!((findings.all()[0].route.as_deref(), findings.count()), (Some("a"), 3));
    }

    #[test]
    fn the_log_is_bounded() {
        let (findings, now) = (FindingLog::default(), Instant::now());
        for at in 0..500 {
            findings.add(finding(&at.to_string(), at), now);
        }
        assert_eq!((findings.all().len(), findings.count()), (MAX_FINDINGS, 500));
        assert_eq!(findings.all()[0].last_seen_ms, 499);
    }
}
