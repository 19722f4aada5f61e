use proptest::prelude::*;

use super::*;

const DIALECTS: [Dialect; 3] = [Dialect::PostgreSql, Dialect::Sqlite, Dialect::MySql];

fn shape(sql: &str) -> String {
    shape_in(Dialect::PostgreSql, sql)
}

fn shape_in(dialect: Dialect, sql: &str) -> String {
    fold(sql, dialect).shape
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
    assert!(!fold("SELECT 5", Dialect::default()).has_parameters);
    assert!(fold("SELECT a FROM t WHERE b = $1", Dialect::default()).has_parameters);
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

/// Each group is one query with different values or generated names.
#[test]
fn one_query_has_one_shape() {
    for group in [
        &["SELECT 1 WHERE id IN (CAST($1 AS uuid), CAST($2 AS uuid))", "SELECT 1 WHERE id IN (CAST($1 AS uuid))"][..],
        &["d IN (DATE '2026-01-01', DATE '2026-01-02')", "d IN (DATE '2026-01-01')"],
        &["n IN (lower($1), lower($2))", "n IN (lower($1))", "n NOT IN (lower($1))"][..2],
        &["n IN (NULL, 1)", "n IN (NULL, 1, 2)", "n IN (1, NULL)", "n IN (5)", "n IN (TRUE)"],
        &["(a, b) IN (ROW(1, 2), ROW(3, 4))", "(a, b) IN (ROW(1, 2))"],
        &["a = ARRAY[ARRAY[1, 2], ARRAY[3, 4]]", "a = ARRAY[ARRAY[1]]"],
        &["a = ARRAY[[1, 2], [3, 4]]", "a = ARRAY[[1], [2], [3]]", "a = ARRAY[[NULL]]"],
        &["INSERT INTO t VALUES (1, NULL), (2, 'a')", "INSERT INTO t VALUES (1, 'b')"],
        &["VALUES ROW(1, 2), ROW(3, 4)", "VALUES ROW(1, 2)"],
        &["a IN (VALUES (1), (2))", "a IN (VALUES (1))"],
        &["SAVEPOINT sp_1", "SAVEPOINT \"sp 2\""],
        &["RELEASE SAVEPOINT sp_1", "RELEASE SAVEPOINT sp_2"],
        &["ROLLBACK TO SAVEPOINT diesel_savepoint_1", "ROLLBACK TO SAVEPOINT diesel_savepoint_2"],
        &["DECLARE cur_a CURSOR FOR SELECT 1", "DECLARE cur_b CURSOR FOR SELECT 2"],
        &["FETCH 10 FROM cur_a", "FETCH 20 FROM cur_b"],
        &["FETCH FORWARD ALL IN cur_a", "FETCH FORWARD ALL IN cur_b"],
        &["MOVE NEXT FROM cur_a", "MOVE NEXT FROM cur_b"],
        &["CLOSE cur_a", "CLOSE cur_b"],
        &["UPDATE t SET a = 1 WHERE CURRENT OF cur_a", "UPDATE t SET a = 2 WHERE CURRENT OF cur_b"],
        &["PREPARE s1 (int) AS SELECT $1", "PREPARE s2 (int) AS SELECT $1"],
        &["EXECUTE s1(1, 'a')", "EXECUTE s2(2, 'b')"],
        &["DEALLOCATE s1", "DEALLOCATE s2"],
        &["DEALLOCATE PREPARE s1", "DEALLOCATE PREPARE s2"],
        &["LISTEN user_1", "LISTEN user_2"],
        &["NOTIFY user_1, 'a'", "NOTIFY user_2, 'b'"],
        &["SET search_path TO tenant_1, public", "SET search_path TO tenant_2"],
        &["SET LOCAL app.user = 'a'", "SET LOCAL app.user = alice", "SET LOCAL app.user = -5"],
        &["SET TIME ZONE 'UTC'", "SET TIME ZONE LOCAL", "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE"],
        &["SET ROLE alice", "SET ROLE 'bob'"],
        &["BEGIN; SAVEPOINT a; SELECT 1", "BEGIN; SAVEPOINT b; SELECT 2"],
    ] {
        let first = shape(group[0]);
        for sql in group {
            assert_eq!(shape(sql), first, "{sql}");
            assert_eq!(shape(&first), first);
        }
    }
}

#[test]
fn different_queries_have_different_shapes() {
    for (one, other) in [
        ("a IN (b, c)", "a IN (b)"),
        ("a IN (b, 1)", "a IN (1)"),
        ("a IS NULL", "a IS NOT NULL"),
        ("FETCH FORWARD 5 FROM c", "FETCH BACKWARD 5 FROM c"),
        ("ROLLBACK", "ROLLBACK TO SAVEPOINT a"),
        ("CLOSE ALL", "CLOSE a"),
        ("DEALLOCATE ALL", "DEALLOCATE a"),
        ("SET a = 1", "SET b = 1"),
        ("SET TRANSACTION READ ONLY", "SET TRANSACTION READ WRITE"),
        ("UPDATE t SET a = b", "UPDATE t SET a = c"),
        ("VALUES (1), (2)", "VALUES (1, 2)"),
        ("SELECT f(a, 1)", "SELECT f(a, 1, 2)"),
        ("a IN (SELECT b FROM t WHERE c IS NULL)", "a IN (SELECT b FROM t)"),
    ] {
        assert_ne!(shape(one), shape(other));
    }
    assert_eq!(shape("COMMIT PREPARED 'a'"), "COMMIT PREPARED ?");
    assert_eq!(shape("PREPARE TRANSACTION 'a'"), "PREPARE TRANSACTION ?");
    assert_eq!(shape("a IN (SELECT b FROM t WHERE c IS NULL)"), "a IN (SELECT b FROM t WHERE c IS NULL)");
}

#[test]
fn dialects_differ_in_quotes_and_comments() {
    let (postgres, sqlite, mysql) = (Dialect::PostgreSql, Dialect::Sqlite, Dialect::MySql);
    assert_eq!(shape_in(mysql, r"SELECT 'it\'s 7', a # 8"), "SELECT ?, a");
    assert_eq!(shape_in(mysql, r#"SELECT "it\"s 7", `a``b`"#), "SELECT ?, `a``b`");
    assert_eq!(shape_in(mysql, "SELECT 5--3"), "SELECT ?-?");
    assert_eq!(shape_in(mysql, "SELECT 5 -- 3"), "SELECT ?");
    assert_eq!(shape_in(mysql, "SELECT 1 /* a /* b */ + 2"), "SELECT ? + ?");
    assert_eq!(shape_in(postgres, "SELECT 1 /* a /* b */ + 2"), "SELECT ?");
    assert_eq!(shape_in(postgres, r"SELECT 'a\', b # c"), "SELECT ?, b # c");
    assert_eq!(shape_in(postgres, r#"WHERE "a" = "b""#), r#"WHERE "a" = "b""#);
    assert_eq!(shape_in(sqlite, r#"WHERE "a" = "secret" AND b LIKE "secret""#), r#"WHERE "a" = ? AND b LIKE ?"#);
    assert_eq!(shape_in(sqlite, r#"ON "a"."id" = "b"."a_id" AND 1"#), r#"ON "a"."id" = "b"."a_id" AND ?"#);
    assert_eq!(
        shape_in(sqlite, r#"INSERT INTO "t" ("a") VALUES ("secret", "x")"#),
        r#"INSERT INTO "t" ("a") VALUES (?, ?)"#
    );
    assert_eq!(shape_in(sqlite, r#"a IN ("x", "y", 5)"#), "a IN (?)");
    assert_eq!(shape_in(sqlite, "SELECT [a 'b] FROM t"), "SELECT [a 'b] FROM t");
}

#[test]
fn deep_brackets_are_accepted() {
    for open in ["(", "[", "IN (", "ARRAY[", "VALUES (", "f(1, "] {
        let once = shape(&open.repeat(20_000));
        assert_eq!(shape(&once), once);
    }
    let sql = format!("SELECT {}'secret'{}", "(".repeat(500), ")".repeat(500));
    assert_eq!(shape(&sql), sql.replace("'secret'", "?"));
}

/// Returns a strategy for SQL in which each literal contains `secret` or a number above 7000, and nothing else does.
fn sql(dialect: Dialect) -> impl Strategy<Value = String> {
    let plain = "'[ a-z()$,;#-]{0,5}secret('')?[\"$/*]{0,3}'".boxed();
    let number = "[+-]?(7[0-9]{3}|7[0-9]{3}\\.[0-9]{1,3}|7[0-9]{3}e[+-]?[0-9])".boxed();
    let own = match dialect {
        Dialect::PostgreSql => prop_oneof![
            "[eE]'(\\\\'|\\\\\\\\|a)secret'",
            "\\$([a-z]{0,2})\\$ secret 'x' ".prop_map(|open| {
                let tag = open.split('$').nth(1).unwrap_or_default().to_owned();
                format!("{open}${tag}$")
            }),
            "(DATE|INTERVAL|UUID) '7[0-9]{3}secret'",
        ]
        .boxed(),
        // A string in double quotes is a literal in the place of a value only.
        Dialect::Sqlite => "(=|LIKE|<) \"secret [a-z ']{0,3}(\"\")?\"".boxed(),
        Dialect::MySql => prop_oneof!["\"(\\\\\"|\\\\\\\\|'|a)secret\"", "'(\\\\'|\\\\\\\\|a)secret'"].boxed(),
    };
    let comment = match dialect {
        Dialect::PostgreSql => "/\\* secret /\\* 7777 \\*/ \\*/|-- secret 7777\n",
        Dialect::Sqlite => "/\\* secret /\\* 7777 \\*/|--secret 7777\n",
        Dialect::MySql => "/\\* secret /\\* 7777 \\*/|# secret 7777\n|-- secret\n",
    };
    let name = if dialect == Dialect::MySql { "`[a-z0-6 '$()]{0,4}`" } else { "\"[a-z0-6 '$()]{0,4}\"" };
    let other = prop_oneof![
        "[a-zé_][a-zé0-6_]{0,4}",
        name,
        comment,
        prop::sample::select(vec![
            "(",
            ")",
            ",",
            ";",
            "=",
            "-",
            "+",
            ".",
            "::",
            ":",
            "->>",
            "IN (",
            "VALUES (",
            "), (",
            "ARRAY[",
            "SELECT",
            "LIMIT",
            "$1",
            "?",
            "?2",
            ":name",
            "@x",
            "\n",
            "\t",
            "/",
            "*",
            "NULL",
            "TRUE",
            "IS",
            "NOT",
            "ROW(",
            "SET",
            "; SET a =",
            "SET TIME ZONE",
            "SAVEPOINT",
            "FETCH",
            "DECLARE",
            "EXECUTE",
            "CURRENT OF",
            "CASE",
            "DEFAULT",
        ])
        .prop_map(str::to_owned),
    ];
    let space = prop::sample::select(vec![" ", "\n", " /* */ "]);
    prop::collection::vec((prop_oneof![plain, number, own, other], space), 0..25)
        .prop_map(|pieces| pieces.into_iter().flat_map(|(piece, space)| [piece, space.to_owned()]).collect())
}

fn any_dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(DIALECTS.to_vec())
}

proptest! {
    #[test]
    fn folding_accepts_any_text_and_is_idempotent(text in any::<String>(), dialect in any_dialect()) {
        let once = shape_in(dialect, &text);
        prop_assert_eq!(shape_in(dialect, &once), once);
    }

    #[test]
    fn folding_is_idempotent_for_text_that_resembles_sql(
        text in "([ae01'\"$?:@().,;\\[\\]*/\\\\#+ \n\u{e9}-]|IN|VALUES|ARRAY|NULL|SET|TO|IS|ROW|SELECT|FETCH|CLOSE){0,40}",
        dialect in any_dialect(),
    ) {
        let once = shape_in(dialect, &text);
        prop_assert_eq!(shape_in(dialect, &once), once);
    }

    #[test]
    fn no_literal_remains(
        (dialect, text) in any_dialect().prop_flat_map(|dialect| (Just(dialect), sql(dialect)))
    ) {
        let folded = shape_in(dialect, &text);
        prop_assert!(!folded.contains("secret"), "{folded}");
        prop_assert!(!folded.contains('7'), "{folded}");
        prop_assert_eq!(shape_in(dialect, &folded), folded);
    }

    #[test]
    fn values_do_not_change_the_shape(numbers in prop::collection::vec(any::<i64>(), 1..6), text in "[a-z']{0,5}") {
        let list: Vec<String> = numbers.iter().map(i64::to_string).collect();
        let sql = format!("SELECT a FROM t WHERE b = '{}' AND c IN ({})", text.replace('\'', "''"), list.join(", "));
        prop_assert_eq!(shape(&sql), "SELECT a FROM t WHERE b = ? AND c IN (?)");
    }
}
