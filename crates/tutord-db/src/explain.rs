//! Preparation of a statement's shape, which has a `?` for each value, for planning without execution.

/// Returns `true` if the shape can be planned: a single statement that reads or changes rows.
pub(crate) fn is_plannable(shape: &str) -> bool {
    const FIRST: [&str; 5] = ["SELECT", "WITH", "INSERT", "UPDATE", "DELETE"];
    let word = shape.split(|letter: char| !letter.is_ascii_alphabetic()).next().unwrap_or_default();
    // A second statement would be run, not planned.
    FIRST.iter().any(|known| word.eq_ignore_ascii_case(known)) && !shape.contains(';')
}

/// Returns the statement with `$1`, `$2`, … for its values, and their number. A `?` in quotes is not a value.
pub(crate) fn numbered(shape: &str) -> (String, usize) {
    let mut text = String::with_capacity(shape.len() + 16);
    let (mut values, mut quote) = (0_usize, None);
    for letter in shape.chars() {
        match (letter, quote) {
            ('?', None) => {
                values += 1;
                text.push('$');
                text.push_str(&values.to_string());
                continue;
            }
            ('"' | '\'', None) => quote = Some(letter),
            (_, Some(open)) if open == letter => quote = None,
            _ => {}
        }
        text.push(letter);
    }
    (text, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_statements_about_rows_are_planned() {
        for sql in
            ["SELECT ?", "with x as (SELECT ?) SELECT * FROM x", "INSERT INTO t VALUES (?)", "UPDATE t SET a = ?"]
        {
            assert!(is_plannable(sql), "{sql}");
        }
        for sql in ["", "BEGIN", "EXPLAIN ANALYZE DELETE FROM t", "SELECT ?; DROP TABLE t", "SELECTED", "(cancelled)"] {
            assert!(!is_plannable(sql), "{sql}");
        }
    }

    #[test]
    fn values_are_numbered_in_their_order() {
        assert_eq!(numbered("SELECT ?"), ("SELECT $1".to_owned(), 1));
        let sql = r#"UPDATE "what?" SET a = ? WHERE b IN (?) AND c = '?' LIMIT ?"#;
        let expected = r#"UPDATE "what?" SET a = $1 WHERE b IN ($2) AND c = '?' LIMIT $3"#;
        assert_eq!(numbered(sql), (expected.to_owned(), 3));
        assert_eq!(numbered("SELECT now()"), ("SELECT now()".to_owned(), 0));
    }
}
