//! Splits SQL into tokens. It covers the grammars of PostgreSQL, SQLite and MySQL as far as they separate values from the
//! rest.
//!
//! Every text is accepted. A string without its closing quote extends to the end of the text.

/// The SQL dialect of a database, which determines what is a literal, a name or a comment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// Double quotes enclose names. Backslashes escape only in `E'…'`. Comments nest.
    #[default]
    PostgreSql,
    /// Double quotes enclose names or, in the place of a value, strings; brackets and backticks enclose names.
    Sqlite,
    /// Double quotes enclose strings, backticks enclose names, backslashes escape, and `#` starts a comment.
    MySql,
}

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whitespace and comments.
    Space,
    /// A keyword, or a name without quotes.
    Word,
    /// A quoted name.
    Name,
    /// A literal.
    Literal,
    /// A placeholder: `$1`, `?`, `?1`, `:name`, `@name`.
    Parameter,
    /// One byte of punctuation, or `::`.
    Mark,
}

/// A token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'sql> {
    pub(super) kind: Kind,
    pub(super) text: &'sql str,
}

/// An iterator over the tokens of a text, without gaps.
pub(super) struct Lexer<'sql> {
    sql: &'sql str,
    at: usize,
    dialect: Dialect,
}

impl<'sql> Lexer<'sql> {
    pub(super) const fn new(sql: &'sql str, dialect: Dialect) -> Self {
        Self { sql, at: 0, dialect }
    }

    fn byte(&self, at: usize) -> u8 {
        // No token contains NUL, so NUL marks the end.
        self.sql.as_bytes().get(at).copied().unwrap_or(0)
    }

    /// Returns the end of the run of matching bytes that starts at `from`.
    fn run(&self, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
        let rest = self.sql.as_bytes().get(from..).unwrap_or_default();
        from + rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len())
    }

    /// Returns the position after the next `what`.
    fn after(&self, from: usize, what: &str) -> Option<usize> {
        let rest = self.sql.get(from..)?;
        rest.find(what).map(|found| from + found + what.len())
    }

    /// Returns the position after the closing quote of a string. A doubled quote does not close the string.
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

    /// Returns the end of the comment that starts at `from`. Comments nest in PostgreSQL only.
    fn comment(&self, from: usize) -> usize {
        let (mut at, mut depth) = (from + 2, 1_usize);
        while depth > 0 && at < self.sql.len() {
            (at, depth) = match (self.byte(at), self.byte(at + 1)) {
                (b'*', b'/') => (at + 2, depth - 1),
                (b'/', b'*') if self.dialect == Dialect::PostgreSql => (at + 2, depth + 1),
                _ => (at + 1, depth),
            };
        }
        at
    }

    /// Returns the end of a number with all adjacent letters and digits: `1`, `1.5`, `1e-3`, `0xFF`, `1_000`.
    fn number(&self, from: usize) -> usize {
        let hexadecimal = self.byte(from) == b'0' && matches!(self.byte(from + 1), b'x' | b'X');
        let mut at = from;
        loop {
            // A dollar sign may open a string.
            at = self.run(at, |byte| (is_word(byte) && byte != b'$') || byte == b'.');
            let exponent = matches!(self.byte(at.saturating_sub(1)), b'e' | b'E') && !hexadecimal;
            if exponent && matches!(self.byte(at), b'+' | b'-') && self.byte(at + 1).is_ascii_digit() {
                at += 1;
            } else {
                return at;
            }
        }
    }

    /// Returns the end of a string `$tag$ … $tag$` that starts at `from`, or `None` if no such string starts there.
    fn dollar_quoted(&self, from: usize) -> Option<usize> {
        let tag = self.run(from + 1, |byte| is_word(byte) && byte != b'$');
        if self.byte(tag) != b'$' {
            return None;
        }
        let delimiter = self.sql.get(from..=tag)?;
        Some(self.after(tag + 1, delimiter).unwrap_or(self.sql.len()))
    }

    /// Returns whether a comment `-- …` starts here. MySQL requires a space after the dashes. A comment or semicolon there
    /// counts as a space, because shapes do not contain them.
    fn is_line_comment(&self, next: u8) -> bool {
        let third = self.byte(self.at + 2);
        next == b'-' && (self.dialect != Dialect::MySql || is_space(third) || matches!(third, 0 | b'#' | b'/' | b';'))
    }

    fn token(&self) -> (Kind, usize) {
        let (at, end) = (self.at, self.sql.len());
        let next = self.byte(at + 1);
        let name = |from| self.run(from, is_word);
        let mysql = self.dialect == Dialect::MySql;
        let string = |from, escapes| (Kind::Literal, self.quoted(from, b'\'', escapes).unwrap_or(end));
        match self.byte(at) {
            byte if is_space(byte) => (Kind::Space, self.run(at, is_space)),
            b'-' if self.is_line_comment(next) => (Kind::Space, self.run(at, |byte| byte != b'\n')),
            b'#' if mysql => (Kind::Space, self.run(at, |byte| byte != b'\n')),
            b'/' if next == b'*' => (Kind::Space, self.comment(at)),
            b'\'' => string(at + 1, mysql),
            b'e' | b'E' if next == b'\'' => string(at + 2, true),
            b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if next == b'\'' => string(at + 2, mysql),
            b'u' | b'U' if next == b'&' && self.byte(at + 2) == b'\'' => string(at + 3, mysql),
            b'"' if mysql => (Kind::Literal, self.quoted(at + 1, b'"', true).unwrap_or(end)),
            quote @ (b'"' | b'`') => self.name(at + 1, quote),
            b'[' if self.dialect == Dialect::Sqlite => self.name(at + 1, b']'),
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

impl Lexer<'_> {
    /// A quoted name. A name without its closing quote becomes a literal, so that no value is shown.
    fn name(&self, from: usize, quote: u8) -> (Kind, usize) {
        self.quoted(from, quote, false).map_or((Kind::Literal, self.sql.len()), |end| (Kind::Name, end))
    }
}

impl<'sql> Iterator for Lexer<'sql> {
    type Item = Token<'sql>;

    fn next(&mut self) -> Option<Token<'sql>> {
        if self.at >= self.sql.len() {
            return None;
        }
        let (kind, end) = self.token();
        // Tokens end next to an ASCII byte or at the end of the text, so never within a character.
        let text = self.sql.get(self.at..end).or_else(|| self.sql.get(self.at..)).unwrap_or_default();
        self.at += text.len().max(1);
        Some(Token { kind, text })
    }
}

/// Names may contain all characters outside of ASCII, as in PostgreSQL.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii()
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}
