//! The shapes of SQL statements: their texts without values.

mod folder;
mod lexer;
mod names;
#[cfg(test)]
mod tests;

use folder::Folder;
pub use lexer::Dialect;
use lexer::{Kind, Lexer};

/// The shape of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Folded {
    pub(crate) shape: String,
    /// Set if the text has placeholders. A text without placeholders identifies its values too.
    pub(crate) has_parameters: bool,
}

/// Computes the shape of a text:
/// - Literals and placeholders become `?`, including their sign.
/// - Comments are removed, and whitespace becomes one space.
/// - Of the elements in `IN (…)` and `ARRAY[…]` that contain values, only the first remains, and of the rows after `VALUES`
///   only the first row. `NULL`, `TRUE` and `FALSE` count as values there.
/// - The values of a `SET` command become one `?`.
/// - The names of savepoints, cursors, prepared statements and notification channels become `?`, because programs generate
///   them.
///
/// The shape of a shape is the shape itself.
pub(crate) fn fold(sql: &str, dialect: Dialect) -> Folded {
    let mut folder = Folder::new(sql.len(), dialect);
    let mut tokens = Lexer::new(sql, dialect).peekable();
    while let Some(token) = tokens.next() {
        folder.push(token, tokens.peek());
    }
    folder.finish()
}

/// Returns whether a shape is one statement that controls a transaction, such as `BEGIN`.
pub(crate) fn is_transaction_control(shape: &str) -> bool {
    const FIRST: [&str; 8] = ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ABORT"];
    let word = first_word(shape);
    FIRST.iter().any(|known| word.eq_ignore_ascii_case(known)) && !shape.contains(';')
}

/// Returns whether a statement may return rows.
pub(crate) fn may_return_rows(shape: &str) -> bool {
    const CHANGES: [&str; 10] =
        ["INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "ALTER", "DROP", "TRUNCATE", "SET", "LOCK"];
    let word = first_word(shape);
    let changes = CHANGES.iter().any(|known| word.eq_ignore_ascii_case(known));
    let returning = || {
        let mut tokens = Lexer::new(shape, Dialect::default());
        tokens.any(|token| token.kind == Kind::Word && token.text.eq_ignore_ascii_case("RETURNING"))
    };
    !is_transaction_control(shape) && (!changes || returning())
}

fn first_word(shape: &str) -> &str {
    shape.split(|byte: char| !byte.is_ascii_alphanumeric()).next().unwrap_or_default()
}

/// Returns the id of a shape: its FNV-1a hash of 64 bits, which is the same in every process and release.
pub(crate) fn id(shape: &str) -> u64 {
    shape.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
