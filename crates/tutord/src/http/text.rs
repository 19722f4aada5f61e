//! Detection of texts without visible characters.
//!
//! Texts with visible characters are stored as written, including changes of direction: pages isolate user texts
//! (`<bdi>`), so that a name affects only itself.

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed, CodePointSetData, CodePointSetDataBorrowed};

const IGNORABLE: CodePointSetDataBorrowed<'static> = CodePointSetData::new::<DefaultIgnorableCodePoint>();
const CATEGORY: CodePointMapDataBorrowed<'static, GeneralCategory> = CodePointMapData::<GeneralCategory>::new();

/// The only symbol without ink (the blank Braille pattern).
const BRAILLE_BLANK: char = '\u{2800}';

/// Returns `true` if a character is invisible: white space, controls, formats such as a change of direction, and
/// characters that renderers ignore according to Unicode, such as fillers, variation selectors and tags.
pub(crate) fn is_invisible(character: char) -> bool {
    let by_category = matches!(
        CATEGORY.get(character),
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::SpaceSeparator
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    );
    by_category || IGNORABLE.contains(character) || character == BRAILLE_BLANK
}

/// Returns `true` if a text has no visible character.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(is_invisible)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_texts() {
        for blank in [
            "",
            " \t\n",
            "\u{a0}",
            "\u{ad}",
            "\u{34f}",
            "\u{61c}",
            "\u{115f}",
            "\u{1160}",
            "\u{17b4}",
            "\u{180e}",
            "\u{200b}",
            "\u{200d}",
            "\u{200e}",
            "\u{2028}",
            "\u{202e}",
            "\u{2060}",
            "\u{2066}",
            "\u{206f}",
            "\u{2800}",
            "\u{3000}",
            "\u{3164}",
            "\u{fe0f}",
            "\u{feff}",
            "\u{ffa0}",
            "\u{fff9}",
            "\u{1d173}",
            "\u{e0001}",
            "\u{e0041}",
            "\u{e0100}",
            "\u{7f}",
        ] {
            assert!(is_blank(blank), "{}", blank.escape_unicode());
        }
        for shown in ["a", "\u{200b}x", "\u{301}", "日本", "\u{1f468}\u{200d}\u{1f469}", ".", "\u{2801}", "\u{e000}"]
        {
            assert!(!is_blank(shown), "{}", shown.escape_unicode());
        }
    }
}
