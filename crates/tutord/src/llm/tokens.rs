//! How many tokens a text has.
//!
//! Which tokenizer a model uses is not known, and for most there is no table at hand. Tokenizers of today differ most
//! where they were trained least: for other scripts than the Latin one `cl100k_base` is the most wasteful of those in wide
//! use. Its count and a margin bounds the others'; what is still missing is learned from the counts that the endpoint
//! sends.

/// Added to the count of `cl100k_base`, in percent: by so much other tokenizers need more for some code.
const MARGIN: usize = 15;
/// Tokens that a chat template puts around each message.
pub const MESSAGE_OVERHEAD: u32 = 6;

/// Returns how many tokens a text has at most, by the tokenizers of today; 0 for an empty one.
///
/// The tables are loaded at the first call, which takes some 20 ms and 15 MB.
pub fn estimate_tokens(text: &str) -> u32 {
    let count = bpe_openai::cl100k_base().count(text);
    u32::try_from(count + (count * MARGIN).div_ceil(100)).unwrap_or(u32::MAX)
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

    /// Texts with their counts by the npm packages gpt-tokenizer and llama3-tokenizer-js.
    fn texts() -> BTreeMap<String, Counts> {
        serde_json::from_str(include_str!("fixtures/tokens.json")).unwrap()
    }

    #[test]
    fn no_text_has_more_tokens_than_estimated_nor_far_fewer() {
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
            "a quarter of a token a character"
        );
    }

    #[test]
    fn nothing_has_no_tokens() {
        assert_eq!((estimate_tokens(""), estimate_tokens("a")), (0, 2));
    }
}
