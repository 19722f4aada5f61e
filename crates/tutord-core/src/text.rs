//! Truncation of texts at visible boundaries.

use unicode_segmentation::UnicodeSegmentation as _;

/// Returns the beginning of a text: at most `max` characters, in whole grapheme clusters (Unicode Standard Annex 29), so
/// that no letter loses its accent and no emoji is cut in two. A first cluster that is longer alone is cut.
pub fn head(text: &str, max: usize) -> &str {
    let (mut end, mut count) = (0, 0);
    for cluster in text.graphemes(true) {
        count += cluster.chars().count();
        if count > max {
            break;
        }
        end += cluster.len();
    }
    if end == 0 {
        end = text.char_indices().nth(max).map_or(text.len(), |(index, _)| index);
    }
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clusters_stay_whole() {
        let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        assert_eq!(head(&family.repeat(3), 11), family.repeat(2));
        assert_eq!(head("cafe\u{301} au lait", 4), "caf");
        assert_eq!(head("a\u{1f1e9}\u{1f1ea}", 2), "a", "half a flag");
        assert_eq!(head("short", 60), "short");
        assert_eq!(head(&format!("a{}", "\u{301}".repeat(99)), 10).chars().count(), 10);
        assert_eq!((head("", 5), head("a", 0)), ("", ""));
    }

    proptest! {
        #[test]
        fn a_head_is_a_prefix_that_ends_between_clusters(text in "\\PC{0,40}", max in 1_usize..20) {
            let head = head(&text, max);
            prop_assert!(text.starts_with(head) && head.chars().count() <= max);
            prop_assert!(!head.is_empty() || text.is_empty());
            let first = text.graphemes(true).next().unwrap_or_default();
            if first.chars().count() <= max {
                let ends: Vec<usize> = text.grapheme_indices(true).map(|(index, _)| index).chain([text.len()]).collect();
                prop_assert!(ends.contains(&head.len()));
            }
        }
    }
}
