//! Folds SQL into its shape: what stays the same when only values differ.

mod lexer;
#[cfg(test)]
mod tests;

use lexer::{Kind, Lexer, Token};

/// What is to be known of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Folded {
    pub(crate) shape: String,
    /// Whether it has places for bind values: without, the text says all there is to know.
    pub(crate) has_parameters: bool,
}

/// Folds a text:
/// - literals and parameters become `?`, also with a sign before them;
/// - comments go, and whitespace becomes one space;
/// - of the list after `IN (`, or in `ARRAY[`, the first value stays, and of the rows after `VALUES` the first row.
///
/// Folding a shape gives the shape again. Names in double quotes stay, which in SQLite may be strings if there is no such
/// column; strings with backslashes are read as PostgreSQL does since 9.1 (`standard_conforming_strings`).
pub(crate) fn fold(sql: &str) -> Folded {
    let mut folder = Folder { shape: String::with_capacity(sql.len().min(1024)), ..Folder::default() };
    let mut tokens = Lexer::new(sql).peekable();
    while let Some(token) = tokens.next() {
        let number_follows = tokens.peek().is_some_and(|next| {
            next.kind == Kind::Literal && next.text.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        });
        folder.take(token, number_follows);
    }
    folder.finish()
}

/// What was before the current token, apart from whitespace.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Before {
    #[default]
    Start,
    /// A name or a closing bracket: a sign after it is an operator.
    Operand,
    In,
    Array,
    Values,
    /// The bracket of a list in which only the first value counts.
    ListOpened,
    /// A keyword after which a sign belongs to the number.
    Keyword,
    Mark,
}

/// The list that is being folded.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum List {
    #[default]
    None,
    /// The values of `IN` or `ARRAY`, inside brackets of this depth; the first is still being read.
    First(usize),
    /// All that comes until the bracket of this depth closes is left out.
    Rest(usize),
    /// The first row of `VALUES`.
    Row(usize),
    /// Behind a row.
    BehindRow,
    /// Behind a row and a comma.
    BehindComma,
    /// A further row is left out.
    FurtherRow(usize),
}

#[derive(Debug, Default)]
struct Folder {
    shape: String,
    parameters: bool,
    space: bool,
    /// Whether the comma of [`List::BehindComma`] had a space before it.
    space_before_comma: bool,
    depth: usize,
    before: Before,
    list: List,
}

impl Folder {
    fn take(&mut self, token: Token<'_>, number_follows: bool) {
        if token.kind == Kind::Space {
            self.space = true;
            return;
        }
        self.parameters |= token.kind == Kind::Parameter;
        match token.text {
            "(" | "[" => self.depth += 1,
            ")" | "]" => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.leave_out(token.text) {
            self.space = false;
            return;
        }
        let signed = matches!(self.before, Before::Start | Before::Mark | Before::ListOpened | Before::Keyword);
        if number_follows && signed && matches!(token.text, "-" | "+") {
            return;
        }
        self.open_list(token);
        self.write(match token.kind {
            Kind::Literal | Kind::Parameter => "?",
            _ => token.text,
        });
        self.before = match token.kind {
            Kind::Word => keyword(token.text),
            Kind::Mark if matches!(token.text, ")" | "]") => Before::Operand,
            Kind::Mark if matches!(token.text, "(" | "[") && matches!(self.before, Before::In | Before::Array) => {
                Before::ListOpened
            }
            Kind::Mark => Before::Mark,
            _ => Before::Operand,
        };
    }

    /// Whether the token is in a part of a list that is left out; follows the list to its end.
    fn leave_out(&mut self, text: &str) -> bool {
        match self.list {
            List::None => return false,
            List::First(depth) if self.depth < depth => self.list = List::None,
            List::First(depth) if self.depth == depth && text == "," => {
                self.list = List::Rest(depth);
                return true;
            }
            List::First(_) => {}
            List::Rest(depth) if self.depth < depth => self.list = List::None,
            List::Rest(_) => return true,
            List::Row(depth) if self.depth < depth => self.list = List::BehindRow,
            List::Row(_) => {}
            List::BehindRow if text == "," => {
                (self.list, self.space_before_comma) = (List::BehindComma, self.space);
                return true;
            }
            List::BehindRow => self.list = List::None,
            List::BehindComma if text == "(" => {
                self.list = List::FurtherRow(self.depth);
                return true;
            }
            List::BehindComma => self.give_comma_back(),
            List::FurtherRow(depth) => {
                if self.depth < depth {
                    self.list = List::BehindRow;
                }
                return true;
            }
        }
        false
    }

    /// The comma behind a row of `VALUES` belonged to something else.
    fn give_comma_back(&mut self) {
        let space = std::mem::replace(&mut self.space, self.space_before_comma);
        self.write(",");
        (self.space, self.before, self.list) = (space, Before::Mark, List::None);
    }

    fn open_list(&mut self, token: Token<'_>) {
        if self.list != List::None {
            return;
        }
        match (self.before, token.text) {
            (Before::Values, "(") => self.list = List::Row(self.depth),
            (Before::ListOpened, "(") => self.list = List::First(self.depth - 1),
            (Before::ListOpened, _) if matches!(token.kind, Kind::Literal | Kind::Parameter) => {
                self.list = List::First(self.depth);
            }
            _ => {}
        }
    }

    fn write(&mut self, text: &str) {
        if std::mem::take(&mut self.space) && !self.shape.is_empty() {
            self.shape.push(' ');
        }
        self.shape.push_str(text);
    }

    fn finish(mut self) -> Folded {
        if self.list == List::BehindComma {
            self.give_comma_back();
        }
        let kept = self.shape.trim_end_matches([';', ' ']).len();
        self.shape.truncate(kept);
        Folded { shape: self.shape, has_parameters: self.parameters }
    }
}

fn keyword(word: &str) -> Before {
    let is = |other: &str| word.eq_ignore_ascii_case(other);
    // After these comes a value: a sign there belongs to it.
    const BEFORE_VALUES: [&str; 17] = [
        "SELECT",
        "LIMIT",
        "OFFSET",
        "WHERE",
        "AND",
        "OR",
        "NOT",
        "WHEN",
        "THEN",
        "ELSE",
        "BETWEEN",
        "LIKE",
        "BY",
        "RETURNING",
        "SET",
        "TO",
        "DISTINCT",
    ];
    if is("IN") {
        Before::In
    } else if is("ARRAY") {
        Before::Array
    } else if is("VALUES") {
        Before::Values
    } else if BEFORE_VALUES.iter().any(|known| is(known)) {
        Before::Keyword
    } else {
        Before::Operand
    }
}

/// `BEGIN`, `COMMIT` and their like, alone: round trips that nobody can save by asking for more at once.
pub(crate) fn is_transaction_control(shape: &str) -> bool {
    const FIRST: [&str; 8] = ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ABORT"];
    let word = first_word(shape);
    FIRST.iter().any(|known| word.eq_ignore_ascii_case(known)) && !shape.contains(';')
}

/// Whether rows may come: not from a statement that only changes something.
pub(crate) fn may_return_rows(shape: &str) -> bool {
    const CHANGES: [&str; 10] =
        ["INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "ALTER", "DROP", "TRUNCATE", "SET", "LOCK"];
    let word = first_word(shape);
    let changes = CHANGES.iter().any(|known| word.eq_ignore_ascii_case(known));
    !is_transaction_control(shape)
        && (!changes || Lexer::new(shape).any(|token| token.text.eq_ignore_ascii_case("RETURNING")))
}

fn first_word(shape: &str) -> &str {
    shape.split(|byte: char| !byte.is_ascii_alphanumeric()).next().unwrap_or_default()
}

/// The shape's identity: FNV-1a of 64 bits, so that it is the same in every process and release.
pub(crate) fn id(shape: &str) -> u64 {
    shape.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
