use proptest::prelude::*;

use super::*;

fn shape(sql: &str) -> String {
    fold(sql).shape
}

#[test]
fn literals_and_parameters_become_question_marks() {
    for (sql, expected) in [
        ("SELECT 1", "SELECT ?"),
        ("SELECT -1, +2.5e-3, .5, 0xFF, 1_000", "SELECT ?, ?, ?, ?, ?"),
        ("SELECT a - 1, a -1, (-1)", "SELECT a - ?, a -?, (?)"),
        ("WHERE a=-1 AND b BETWEEN -5 AND +5 LIMIT -1", "WHERE a=? AND b BETWEEN ? AND ? LIMIT ?"),
        ("SELECT 'it''s', E'it\\'s', e'\\\\', B'01', x'ff', N'ä', U&'\\0041'", "SELECT ?, ?, ?, ?, ?, ?, ?"),
        ("SELECT $$a 'b'$$, $tag$ $$ $x$ $tag$", "SELECT ?, ?"),
        (
            "WHERE a = $1 AND b = ? AND c = ?12 AND d = :name AND e = @name AND f = $name",
            "WHERE a = ? AND b = ? AND c = ? AND d = ? AND e = ? AND f = ?",
        ),
        ("SELECT $1::int4, '1'::text, CAST(5 AS text)", "SELECT ?::int4, ?::text, CAST(? AS text)"),
        ("SELECT date '2020-01-01', interval'1 day'", "SELECT date ?, interval?"),
        ("SELECT 'never closed", "SELECT ?"),
        ("SELECT \"never closed 'secret'", "SELECT ?"),
        ("SELECT $$never closed", "SELECT ?"),
    ] {
        assert_eq!(shape(sql), expected, "{sql}");
    }
}

#[test]
fn names_stay() {
    for sql in [
        "SELECT \"a 1 'b' \"\" --\".\"c\" FROM t1 AS `x 2`",
        "SELECT a1, _b2, c$3, tür5 FROM public.t_9",
        "ROLLBACK TO SAVEPOINT diesel_savepoint_1",
        "SELECT data->>? FROM t WHERE NOT a IS NULL AND b = TRUE",
    ] {
        assert_eq!(shape(sql), sql);
    }
}

#[test]
fn comments_and_spaces_go() {
    assert_eq!(shape("  SELECT\n\t a -- 'x' 5\n FROM/* a /* nested 7 */ b */t ; ;"), "SELECT a FROM t");
    assert_eq!(shape("SELECT a -- binds: [5, \"secret\"]"), "SELECT a");
    assert_eq!(shape("/* never closed SELECT 1"), "");
}

#[test]
fn lists_of_any_length_are_one_shape() {
    let one = shape("SELECT * FROM t WHERE id IN ($1) AND a = $2");
    assert_eq!(one, "SELECT * FROM t WHERE id IN (?) AND a = ?");
    assert_eq!(shape("SELECT * FROM t WHERE id IN ($1, $2, $3) AND a = $4"), one);
    assert_eq!(shape("SELECT * FROM t WHERE id IN (-1,'a, )', f(2, (3))) AND a = 5"), one);
    assert_eq!(shape("(a, b) IN ((1, 2), (3, 4))"), "(a, b) IN ((?, ?))");
    assert_eq!(shape("a IN (1::int, 2::int)"), "a IN (?::int)");
    assert_eq!(shape("a = ANY(ARRAY[1, 2, 3])"), "a = ANY(ARRAY[?])");
    assert_eq!(shape("a IN (SELECT b, 1 FROM t)"), "a IN (SELECT b, ? FROM t)");
}

#[test]
fn rows_of_any_number_are_one_shape() {
    let one = shape("INSERT INTO t (a, b) VALUES ($1, $2) RETURNING id, a");
    assert_eq!(one, "INSERT INTO t (a, b) VALUES (?, ?) RETURNING id, a");
    assert_eq!(shape("INSERT INTO t (a, b) VALUES ($1, $2), ($3, DEFAULT) , (lower('x'), 5) RETURNING id, a"), one);
    assert_eq!(shape("WITH v AS (VALUES (1), (2)), w AS (SELECT 1)"), "WITH v AS (VALUES (?)), w AS (SELECT ?)");
    assert_eq!(shape("UPDATE SET a = VALUES(a), b = VALUES(b)"), "UPDATE SET a = VALUES(a), b = VALUES(b)");
    assert_eq!(shape("VALUES (1) ,"), "VALUES (?) ,");
}

#[test]
fn a_text_without_parameters_is_known_as_such() {
    assert!(!fold("SELECT 5").has_parameters);
    assert!(fold("SELECT a FROM t WHERE b = $1").has_parameters);
}

#[test]
fn kinds_of_statements() {
    for control in
        ["BEGIN", "begin immediate", "COMMIT", "ROLLBACK TO SAVEPOINT diesel_savepoint_1", "RELEASE SAVEPOINT a"]
    {
        assert!(is_transaction_control(control) && !may_return_rows(control), "{control}");
    }
    assert!(!is_transaction_control("BEGIN; INSERT INTO t VALUES (?)"));
    assert!(may_return_rows("SELECT ?") && may_return_rows("INSERT INTO t VALUES (?) RETURNING id"));
    assert!(!may_return_rows("UPDATE t SET a = ?"));
}

/// SQL in which every literal contains `secret` or a number above 7000, and nothing else does.
fn sql() -> impl Strategy<Value = String> {
    let literal = prop_oneof![
        "'[ a-z()$,;-]{0,5}secret('')?[\"$/*]{0,3}'",
        "[eE]'(\\\\'|\\\\\\\\|a)secret'",
        "\\$([a-z]{0,2})\\$ secret 'x' ".prop_map(|open| {
            let tag = open.split('$').nth(1).unwrap_or_default().to_owned();
            format!("{open}${tag}$")
        }),
        "[+-]?(7[0-9]{3}|7[0-9]{3}\\.[0-9]{1,3}|7[0-9]{3}e[+-]?[0-9])",
    ];
    let other = prop_oneof![
        "[a-zé_][a-zé0-6_]{0,4}",
        "\"[a-z0-6 '$()]{0,4}\"",
        Just("-- secret 7777\n".to_owned()),
        Just("/* secret /* 7777 */ */".to_owned()),
        prop::sample::select(vec![
            "(", ")", "[", "]", ",", ";", "=", "-", "+", ".", "::", ":", "->>", "IN (", "VALUES (", "), (", "ARRAY[",
            "SELECT", "LIMIT", "$1", "?", "?2", ":name", "@x", "\n", "\t", "/", "*",
        ])
        .prop_map(str::to_owned),
    ];
    let space = prop::sample::select(vec![" ", "\n", " /* */ "]);
    prop::collection::vec((prop_oneof![literal, other], space), 0..25)
        .prop_map(|pieces| pieces.into_iter().flat_map(|(piece, space)| [piece, space.to_owned()]).collect())
}

proptest! {
    #[test]
    fn folding_never_panics_and_twice_is_once(text in any::<String>()) {
        let once = shape(&text);
        prop_assert_eq!(shape(&once), once);
    }

    #[test]
    fn twice_is_once_with_text_that_looks_like_sql(text in "[ae01'\"$?:@().,;\\[\\]INVALUESRY+*/\\-\\\\ \n\u{e9}]{0,40}") {
        let once = shape(&text);
        prop_assert_eq!(shape(&once), once);
    }

    #[test]
    fn no_literal_survives(text in sql()) {
        let folded = shape(&text);
        prop_assert!(!folded.contains("secret"), "{folded}");
        prop_assert!(!folded.contains('7'), "{folded}");
        prop_assert_eq!(shape(&folded), folded);
    }

    #[test]
    fn values_do_not_matter(numbers in prop::collection::vec(any::<i64>(), 1..6), text in "[a-z']{0,5}") {
        let list: Vec<String> = numbers.iter().map(i64::to_string).collect();
        let sql = format!("SELECT a FROM t WHERE b = '{}' AND c IN ({})", text.replace('\'', "''"), list.join(", "));
        prop_assert_eq!(shape(&sql), "SELECT a FROM t WHERE b = ? AND c IN (?)");
    }
}
