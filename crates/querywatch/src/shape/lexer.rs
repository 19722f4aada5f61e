//! Cuts SQL into tokens: just enough of the grammars of PostgreSQL and SQLite to tell values from the rest.
//!
//! Nothing is rejected. What ends too early (a string without its closing quote) reaches to the end of the text.

/// What a piece of SQL is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whitespace and comments.
    Space,
    /// A keyword, or a name without quotes.
    Word,
    /// A name in quotes.
    Name,
    /// A literal.
    Literal,
    /// A place for a bind value: `$1`, `?`, `?1`, `:name`, `@name`.
    Parameter,
    /// A single byte of punctuation, or `::`.
    Mark,
}

/// A piece of SQL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'sql> {
    pub(super) kind: Kind,
    pub(super) text: &'sql str,
}

/// The tokens of a text, in order and without gaps.
pub(super) struct Lexer<'sql> {
    sql: &'sql str,
    at: usize,
}

impl<'sql> Lexer<'sql> {
    pub(super) const fn new(sql: &'sql str) -> Self {
        Self { sql, at: 0 }
    }

    fn byte(&self, at: usize) -> u8 {
        // NUL is in no token but as itself, so it stands for the end.
        self.sql.as_bytes().get(at).copied().unwrap_or(0)
    }

    /// Where a run of bytes ends that begins at `from`.
    fn run(&self, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let rest = self.sql.as_bytes().get(from..).unwrap_or_default();
        from + rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len())
    }

    /// Behind the next `what`; the end of the text when there is none.
    fn behind(&self, from: usize, what: &str) -> Option<usize> {
        let rest = self.sql.get(from..)?;
        rest.find(what).map(|found| from + found + what.len())
    }

    /// Behind the closing quote of a string that is open at `from`; a doubled quote does not close it.
    fn quoted(&self, mut from: usize, quote: u8, escapes: bool) -> Option<usize> {
        loop {
            from = self.run(from, |byte| byte != quote && !(escapes && byte == b'\\'));
            match self.byte(from) {
                byte if byte == quote && self.byte(from + 1) != quote => return Some(from + 1),
                _ if from >= self.sql.len() => return None,
                _ => from += 2,
            }
        }
    }

    /// The end of the comment, in which others may be nested as in PostgreSQL, that begins at `from`.
    fn comment(&self, from: usize) -> usize {
        let (mut at, mut depth) = (from + 2, 1_usize);
        while depth > 0 && at < self.sql.len() {
            (at, depth) = match (self.byte(at), self.byte(at + 1)) {
                (b'*', b'/') => (at + 2, depth - 1),
                (b'/', b'*') => (at + 2, depth + 1),
                _ => (at + 1, depth),
            };
        }
        at
    }

    /// A number, and whatever of letters and digits is glued to it: `1`, `1.5`, `1e-3`, `0xFF`, `1_000`.
    fn number(&self, from: usize) -> usize {
        let hexadecimal = self.byte(from) == b'0' && matches!(self.byte(from + 1), b'x' | b'X');
        let mut at = from;
        loop {
            // A dollar may open a string.
            at = self.run(at, |byte| (is_word(byte) && byte != b'$') || byte == b'.');
            let exponent = matches!(self.byte(at.saturating_sub(1)), b'e' | b'E') && !hexadecimal;
            if exponent && matches!(self.byte(at), b'+' | b'-') && self.byte(at + 1).is_ascii_digit() {
                at += 1;
            } else {
                return at;
            }
        }
    }

    /// The end of `$tag$ … $tag$`, of which the first `$` is at `from`; `None` when this is no such thing.
    fn dollar_quoted(&self, from: usize) -> Option<usize> {
        let tag = self.run(from + 1, |byte| is_word(byte) && byte != b'$');
        if self.byte(tag) != b'$' {
            return None;
        }
        let delimiter = self.sql.get(from..=tag)?;
        Some(self.behind(tag + 1, delimiter).unwrap_or(self.sql.len()))
    }

    fn token(&self) -> (Kind, usize) {
        let (at, end) = (self.at, self.sql.len());
        let next = self.byte(at + 1);
        let name = |from| self.run(from, is_word);
        match self.byte(at) {
            byte if is_space(byte) => (Kind::Space, self.run(at, is_space)),
            b'-' if next == b'-' => (Kind::Space, self.run(at, |byte| byte != b'\n')),
            b'/' if next == b'*' => (Kind::Space, self.comment(at)),
            b'\'' => (Kind::Literal, self.quoted(at + 1, b'\'', false).unwrap_or(end)),
            b'e' | b'E' if next == b'\'' => (Kind::Literal, self.quoted(at + 2, b'\'', true).unwrap_or(end)),
            b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if next == b'\'' => {
                (Kind::Literal, self.quoted(at + 2, b'\'', false).unwrap_or(end))
            }
            b'u' | b'U' if next == b'&' && self.byte(at + 2) == b'\'' => {
                (Kind::Literal, self.quoted(at + 3, b'\'', false).unwrap_or(end))
            }
            quote @ (b'"' | b'`') => match self.quoted(at + 1, quote, false) {
                Some(closed) => (Kind::Name, closed),
                // Something is wrong with this text: better to lose a name than to show a value.
                None => (Kind::Literal, end),
            },
            b'$' if next.is_ascii_digit() => (Kind::Parameter, self.run(at + 1, |byte| byte.is_ascii_digit())),
            b'$' => match self.dollar_quoted(at) {
                Some(closed) => (Kind::Literal, closed),
                None if is_word(next) => (Kind::Parameter, name(at + 1)),
                None => (Kind::Mark, at + 1),
            },
            b'?' => (Kind::Parameter, self.run(at + 1, |byte| byte.is_ascii_digit())),
            b':' if next == b':' => (Kind::Mark, at + 2),
            b':' | b'@' if is_word(next) && !next.is_ascii_digit() => (Kind::Parameter, name(at + 1)),
            byte if byte.is_ascii_digit() => (Kind::Literal, self.number(at)),
            b'.' if next.is_ascii_digit() => (Kind::Literal, self.number(at)),
            byte if is_word(byte) => (Kind::Word, name(at)),
            _ => (Kind::Mark, at + 1),
        }
    }
}

impl<'sql> Iterator for Lexer<'sql> {
    type Item = Token<'sql>;

    fn next(&mut self) -> Option<Token<'sql>> {
        if self.at >= self.sql.len() {
            return None;
        }
        let (kind, end) = self.token();
        // Every token ends before or after an ASCII byte, or at the end: never within a character.
        let text = self.sql.get(self.at..end).or_else(|| self.sql.get(self.at..)).unwrap_or_default();
        self.at += text.len().max(1);
        Some(Token { kind, text })
    }
}

/// As PostgreSQL has it: all that is not ASCII may be in a name.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
