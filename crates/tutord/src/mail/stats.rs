//! Counts of mails.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use tutord_core::model::{MailCounts, MailKind};

/// Counts of mails by kind and outcome, and of waiting mails.
#[derive(Debug, Default)]
pub struct MailStats {
    outcomes: Mutex<BTreeMap<(MailKind, &'static str), u64>>,
    counts: Mutex<MailCounts>,
    /// Consecutive failures to read the queue.
    pub(crate) queue_failures: AtomicU64,
}

impl MailStats {
    /// Returns the numbers of sent, postponed and given-up mails, by kind.
    pub fn outcomes(&self) -> Vec<(MailKind, &'static str, u64)> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.iter().map(|((kind, outcome), count)| (*kind, *outcome, *count)).collect()
    }

    /// Returns the recent counts of waiting mails.
    pub fn counts(&self) -> MailCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the counts of waiting mails.
    pub(crate) fn set_counts(&self, counts: MailCounts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// Counts an attempt.
    pub(crate) fn add(&self, kind: MailKind, outcome: &'static str) {
        *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).entry((kind, outcome)).or_default() += 1;
    }
}
