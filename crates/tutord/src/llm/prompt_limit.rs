//! The maximum length of a prompt, learned from the endpoint's responses.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lowest limit that can be learned; every model in use has a larger context.
const MIN_LIMIT: u32 = 256;

/// The sizes of accepted and refused prompts, in estimated tokens.
///
/// The error of the estimate depends on the language, so an endpoint can refuse a shorter prompt than it accepted
/// before. Refusals therefore take precedence.
#[derive(Debug, Default)]
pub(super) struct PromptLimit(Mutex<PromptSizes>);

#[derive(Debug, Default)]
struct PromptSizes {
    /// The largest accepted prompt; smaller than `refused`.
    accepted: u32,
    /// The smallest refused prompt.
    refused: Option<u32>,
    /// The size that the endpoint's error states.
    stated: Option<u32>,
}

impl PromptSizes {
    fn limit(&self) -> Option<u32> {
        let refused = self.refused?;
        let below = self.stated.filter(|stated| *stated < refused).unwrap_or(refused / 2);
        Some(below.max(self.accepted).max(MIN_LIMIT))
    }
}

impl PromptLimit {
    fn lock(&self) -> MutexGuard<'_, PromptSizes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records an accepted prompt of this size.
    pub(super) fn record_accepted(&self, size: u32) {
        let mut sizes = self.lock();
        if sizes.refused.is_none_or(|refused| size < refused) {
            sizes.accepted = sizes.accepted.max(size);
        }
    }

    /// Records a refused prompt of this size, and the limit that the endpoint states. Returns the limit for later
    /// prompts.
    pub(super) fn record_refused(&self, size: u32, stated: Option<u32>) -> u32 {
        let mut sizes = self.lock();
        let before = sizes.limit();
        let refused = sizes.refused.map_or(size, |refused| refused.min(size));
        sizes.refused = Some(refused);
        sizes.stated = stated.or(sizes.stated);
        if sizes.accepted >= refused {
            sizes.accepted = 0;
        }
        let limit = sizes.limit().unwrap_or(u32::MAX);
        drop(sizes);
        if before != Some(limit) {
            tracing::info!(
                tokens = size,
                limit,
                "a prompt was too long for the model; limiting prompts to {limit} estimated tokens; lower \
                 LLM_CONTEXT_TOKENS"
            );
        }
        limit
    }

    /// Returns the maximum estimated tokens of a prompt; `u32::MAX` before the first refusal.
    pub(super) fn limit(&self) -> u32 {
        self.lock().limit().unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_lies_between_accepted_and_refused_sizes() {
        let limit = PromptLimit::default();
        limit.record_accepted(1_500);
        assert_eq!(limit.limit(), u32::MAX);
        assert_eq!(limit.record_refused(2_000, None), 1_500);
        limit.record_accepted(1_700);
        limit.record_accepted(9_000);
        assert_eq!(limit.limit(), 1_700, "the prompt of 9,000 tokens is in another language");
        assert_eq!(limit.record_refused(1_600, None), 800, "a refusal overrides an accepted size");
        assert_eq!(limit.record_refused(900, Some(700)), 700);
        assert_eq!(limit.record_refused(600, None), 300, "a refusal overrides the stated size");
        for _ in 0..9 {
            limit.record_refused(10, None);
        }
        assert_eq!(limit.limit(), MIN_LIMIT);
    }
}
