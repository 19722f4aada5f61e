//! Estimates of token counts.
//!
//! The tokenizer of the model is unknown, and most models publish none. Tokenizers differ most in non-Latin scripts,
//! where `cl100k_base` produces more tokens than the other common ones. Its count plus a margin is therefore an upper
//! bound for most models. The client corrects the rest with the counts that the endpoint reports.

/// The margin on top of the count of `cl100k_base`, in percent: some tokenizers need this much more for source code.
const MARGIN_PERCENT: usize = 15;
/// Tokens that a chat template adds to each message.
pub const MESSAGE_OVERHEAD: u32 = 6;

/// Returns an upper bound of a text's tokens in common tokenizers; 0 for an empty text.
///
/// The first call loads the tables, which takes about 20 ms and 15 MB.
pub fn estimate_tokens(text: &str) -> u32 {
    let count = bpe_openai::cl100k_base().count(text);
    u32::try_from(count + (count * MARGIN_PERCENT).div_ceil(100)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Counts {
        text: String,
        o200k_base: u32,
        cl100k_base: u32,
        llama3: u32,
    }

    /// Returns texts with their counts by the npm packages gpt-tokenizer and llama3-tokenizer-js.
    fn texts() -> BTreeMap<String, Counts> {
        serde_json::from_str(include_str!("fixtures/tokens.json")).unwrap()
    }

    #[test]
    fn estimates_are_close_upper_bounds() {
        let texts = texts();
        assert!(texts.len() > 40);
        for (name, counts) in &texts {
            let most = counts.o200k_base.max(counts.cl100k_base).max(counts.llama3);
            let estimated = estimate_tokens(&counts.text);
            assert!(estimated >= most, "{name}: {estimated} are fewer than {most}");
            assert!(f64::from(estimated) <= 1.6 * f64::from(most), "{name}: {estimated} are far more than {most}");
        }
        let quarters = |text: &str| u32::try_from(text.chars().count().div_ceil(4)).unwrap();
        assert!(
            texts.values().any(|counts| quarters(&counts.text) < counts.o200k_base),
            "a quarter of a token per character is too low for some texts"
        );
    }

    #[test]
    fn an_empty_text_has_no_tokens() {
        assert_eq!((estimate_tokens(""), estimate_tokens("a")), (0, 2));
    }
}
