//! Truncation of texts for logs and responses.

use std::fmt::{self, Display, Write};

/// The maximum number of characters that are shown.
const MAX_CHARS: usize = 500;

/// Displays at most the first 500 characters of a value: an error can contain client input of any length.
#[derive(Debug, Clone, Copy)]
pub struct Bounded<T>(pub T);

impl<T: Display> Display for Bounded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cut = TruncatingWriter { to: f, left: MAX_CHARS };
        match write!(cut, "{}", self.0) {
            Err(_) if cut.left == 0 => f.write_char('…'),
            written => written,
        }
    }
}

/// Returns an error when the limit is reached, which ends the formatting early.
struct TruncatingWriter<'a, W> {
    to: &'a mut W,
    left: usize,
}

impl<W: Write> Write for TruncatingWriter<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.char_indices().nth(self.left) {
            None => {
                self.left -= text.chars().count();
                self.to.write_str(text)
            }
            Some((end, _)) => {
                self.left = 0;
                self.to.write_str(&text[..end])?;
                Err(fmt::Error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(Bounded("short").to_string(), "short");
        let exact = "é".repeat(MAX_CHARS);
        assert_eq!(Bounded(&exact).to_string(), exact);
        let pieces = format_args!("{}{}", &exact[..100], &exact).to_string();
        let cut = Bounded(format_args!("{}{}", &exact[..100], &exact)).to_string();
        assert_eq!(cut, format!("{}…", pieces.chars().take(MAX_CHARS).collect::<String>()));
    }
}
