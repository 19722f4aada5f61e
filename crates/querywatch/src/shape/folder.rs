//! Writes the shape of a sequence of tokens.

use super::Folded;
use super::lexer::{Dialect, Kind, Token};
use super::names::{Action, Names};

/// The token before the current one, apart from spaces.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Before {
    #[default]
    Start,
    /// A name, a value or a closing bracket. A sign after it is an operator.
    Operand,
    In,
    Array,
    Values,
    /// `IS`, or `NOT` after it.
    Is,
    /// The opening bracket of a list.
    ListOpened,
    /// A keyword after which a sign belongs to the number.
    Keyword,
    /// An operator or keyword whose right side is a value.
    Comparison,
    Mark,
}

/// The rows of a `VALUES` clause.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Rows {
    #[default]
    None,
    /// After a row.
    AfterRow,
    /// After a row and a comma, which starts at this position of the shape.
    AfterComma(usize),
}

/// The maximum number of nested brackets that are tracked. Deeper brackets belong to the innermost tracked one.
const MAX_DEPTH: usize = 100;

/// An open bracket.
#[derive(Debug, Default, Clone, Copy)]
struct Frame {
    kind: FrameKind,
    /// Set if `NULL`, `TRUE` and `FALSE` are values here.
    is_in_values: bool,
    /// Set if the current element contains a value.
    has_value: bool,
    /// Set if an element with a value is written.
    keeps_value: bool,
    /// The start of the current element in the shape, including the comma before it.
    element: usize,
    rows: Rows,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    #[default]
    Plain,
    /// The elements of `IN (…)`.
    Parentheses,
    /// The elements of `ARRAY[…]`.
    Brackets,
    /// A row of `VALUES`. A further row is removed from this position of the shape on.
    Row(Option<usize>),
}

/// Writes a shape.
#[derive(Debug)]
pub(super) struct Folder {
    shape: String,
    dialect: Dialect,
    has_parameters: bool,
    has_space: bool,
    before: Before,
    names: Names,
    outer: Vec<Frame>,
    frame: Frame,
    /// Number of open brackets below `MAX_DEPTH`.
    untracked: usize,
}

impl Folder {
    pub(super) fn new(length: usize, dialect: Dialect) -> Self {
        Self {
            shape: String::with_capacity(length.min(1024)),
            dialect,
            has_parameters: false,
            has_space: false,
            before: Before::Start,
            names: Names::Start,
            outer: Vec::new(),
            frame: Frame::default(),
            untracked: 0,
        }
    }

    /// Adds a token.
    pub(super) fn push(&mut self, token: Token<'_>, next: Option<&Token<'_>>) {
        if token.kind == Kind::Space {
            self.has_space = true;
            return;
        }
        self.has_parameters |= token.kind == Kind::Parameter;
        match self.names.next(&token) {
            Action::Keep => {}
            Action::Replace => {
                self.frame.has_value = true;
                self.write("?");
                // A keyword in the place of a name keeps its effect on the next token.
                self.before = match self.classify(&token) {
                    Before::Is => Before::Operand,
                    before => before,
                };
                return;
            }
            Action::Omit => {
                self.has_space = false;
                return;
            }
        }
        if self.is_sign(&token, next) {
            return;
        }
        if token.kind == Kind::Mark {
            match token.text {
                "(" | "[" => return self.open(token.text),
                ")" | "]" => return self.close(token.text),
                "," => return self.comma(),
                _ => {}
            }
        }
        if matches!(self.frame.rows, Rows::AfterRow | Rows::AfterComma(_)) && !is(&token, "ROW") {
            self.frame.rows = Rows::None;
        }
        if self.is_value(&token, next) {
            self.frame.has_value = true;
            self.write("?");
            self.before = Before::Operand;
        } else {
            if self.starts_subquery(&token) {
                self.frame.is_in_values = false;
                if !matches!(self.frame.kind, FrameKind::Row(_)) {
                    self.frame.kind = FrameKind::Plain;
                }
            }
            self.write(token.text);
            self.before = self.classify(&token);
        }
    }

    /// Returns whether the token is the sign of the number that follows.
    fn is_sign(&self, token: &Token<'_>, next: Option<&Token<'_>>) -> bool {
        let number_follows = next.is_some_and(|next| {
            next.kind == Kind::Literal && next.text.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        });
        number_follows
            && matches!(token.text, "-" | "+")
            && matches!(
                self.before,
                Before::Start | Before::Mark | Before::ListOpened | Before::Keyword | Before::Comparison
            )
    }

    fn is_value(&self, token: &Token<'_>, next: Option<&Token<'_>>) -> bool {
        match token.kind {
            Kind::Literal | Kind::Parameter => true,
            Kind::Word => {
                self.frame.is_in_values
                    && self.before != Before::Is
                    && ["NULL", "TRUE", "FALSE"].iter().any(|word| is(token, word))
            }
            // SQLite reads such a name as a string if no column has the name.
            Kind::Name => {
                self.dialect == Dialect::Sqlite
                    && token.text.starts_with('"')
                    && next.is_none_or(|next| !matches!(next.text, "." | "("))
                    && (self.before == Before::Comparison
                        || self.frame.is_in_values && matches!(self.before, Before::ListOpened | Before::Mark))
            }
            Kind::Space | Kind::Mark => false,
        }
    }

    /// Returns whether the token is the first word of a subquery.
    fn starts_subquery(&self, token: &Token<'_>) -> bool {
        self.shape.len() == self.frame.element
            && ["SELECT", "WITH", "VALUES", "TABLE"].iter().any(|word| is(token, word))
    }

    fn open(&mut self, bracket: &str) {
        let rows = self.frame.rows;
        let kind = match (self.before, bracket) {
            (Before::In, "(") => FrameKind::Parentheses,
            (Before::Array, "[") => FrameKind::Brackets,
            (_, "[") if self.frame.kind == FrameKind::Brackets && self.before != Before::Operand => FrameKind::Brackets,
            (Before::Values, "(") => FrameKind::Row(None),
            (_, "(") => match rows {
                Rows::AfterComma(start) => FrameKind::Row(Some(start)),
                _ => FrameKind::Plain,
            },
            _ => FrameKind::Plain,
        };
        self.frame.rows = Rows::None;
        self.write(bracket);
        if self.outer.len() >= MAX_DEPTH {
            (self.untracked, self.before) = (self.untracked + 1, Before::Mark);
            return;
        }
        self.before = if kind == FrameKind::Plain { Before::Mark } else { Before::ListOpened };
        let is_in_values = kind != FrameKind::Plain || self.frame.is_in_values;
        let frame = Frame { kind, is_in_values, element: self.shape.len(), ..Frame::default() };
        self.outer.push(std::mem::replace(&mut self.frame, frame));
    }

    fn close(&mut self, bracket: &str) {
        self.before = Before::Operand;
        if let Some(left) = self.untracked.checked_sub(1) {
            self.untracked = left;
            return self.write(bracket);
        }
        self.end_element();
        let closed = self.outer.pop().map(|outer| std::mem::replace(&mut self.frame, outer));
        if let Some(closed) = closed {
            self.frame.has_value |= closed.has_value || closed.keeps_value;
            if let FrameKind::Row(further) = closed.kind {
                self.frame.rows = Rows::AfterRow;
                if let Some(start) = further {
                    self.shape.truncate(start);
                    self.has_space = false;
                    return;
                }
            }
        }
        self.write(bracket);
    }

    fn comma(&mut self) {
        if self.untracked > 0 {
            self.before = Before::Mark;
            return self.write(",");
        }
        self.end_element();
        self.frame.element = self.shape.len();
        self.frame.rows = match self.frame.rows {
            Rows::AfterRow => Rows::AfterComma(self.shape.len()),
            _ => Rows::None,
        };
        self.write(",");
        self.before = Before::Mark;
    }

    /// Ends an element of a list. Removes the element if it contains a value and is not the first such element.
    fn end_element(&mut self) {
        if !matches!(self.frame.kind, FrameKind::Parentheses | FrameKind::Brackets) {
            return;
        }
        if std::mem::take(&mut self.frame.has_value) {
            if self.frame.keeps_value {
                self.shape.truncate(self.frame.element);
                self.has_space = false;
            }
            self.frame.keeps_value = true;
        }
    }

    fn write(&mut self, text: &str) {
        if std::mem::take(&mut self.has_space) && !self.shape.is_empty() {
            self.shape.push(' ');
        }
        self.shape.push_str(text);
    }

    fn classify(&self, token: &Token<'_>) -> Before {
        match token.kind {
            Kind::Word => self.keyword(token),
            Kind::Mark if matches!(token.text, "=" | "<" | ">" | "|" | "!") => Before::Comparison,
            Kind::Mark if token.text != "." => Before::Mark,
            _ => Before::Operand,
        }
    }

    fn keyword(&self, token: &Token<'_>) -> Before {
        // A sign after these keywords belongs to the number.
        const BEFORE_NUMBERS: [&str; 15] = [
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
            "BY",
            "RETURNING",
            "SET",
            "TO",
            "DISTINCT",
        ];
        const COMPARISONS: [&str; 6] = ["LIKE", "ILIKE", "GLOB", "MATCH", "REGEXP", "BETWEEN"];
        let is = |word: &&str| is(token, word);
        match () {
            () if is(&"IN") => Before::In,
            () if is(&"ARRAY") => Before::Array,
            // The row constructor of MySQL.
            () if is(&"ROW") && (self.before == Before::Values || self.is_after_row_comma()) => self.before,
            () if is(&"VALUES") => Before::Values,
            () if is(&"IS") || is(&"NOT") && self.before == Before::Is => Before::Is,
            () if COMPARISONS.iter().any(is) => Before::Comparison,
            () if BEFORE_NUMBERS.iter().any(is) => Before::Keyword,
            () => Before::Operand,
        }
    }

    fn is_after_row_comma(&self) -> bool {
        matches!(self.frame.rows, Rows::AfterComma(_))
    }

    pub(super) fn finish(mut self) -> Folded {
        let kept = self.shape.trim_end_matches([';', ' ']).len();
        self.shape.truncate(kept);
        Folded { shape: self.shape, has_parameters: self.has_parameters }
    }
}

fn is(token: &Token<'_>, word: &str) -> bool {
    token.kind == Kind::Word && token.text.eq_ignore_ascii_case(word)
}
