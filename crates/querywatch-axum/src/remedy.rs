//! Suggestions that follow from the shape of a repeated statement.

use maud::{Markup, html};
use querywatch::{Finding, FindingKind};

/// A suggested change of the code, in words, in SQL and for diesel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Remedy {
    text: String,
    sql: Option<String>,
    diesel: Option<String>,
}

impl Remedy {
    /// Derives the remedy of a finding.
    pub(crate) fn of(finding: &Finding) -> Self {
        match (finding.kind, &finding.sql) {
            (FindingKind::BudgetExceeded, _) => Self::words(
                "Look up the statements of the request. Remove repetitions first, then join or cache an added read. Raise the budget for a new need.",
            ),
            (FindingKind::RepeatedQuery, _) => {
                Self::words("The values are the same each time: load the result once and pass it on, or cache it.")
            }
            (FindingKind::NPlusOne, Some(sql)) => Self::of_repetition(sql),
            _ => Self::words(GENERIC),
        }
    }

    fn words(text: &str) -> Self {
        Self { text: text.to_owned(), sql: None, diesel: None }
    }

    fn code(text: String, sql: String, diesel: String) -> Self {
        Self { text, sql: Some(sql), diesel: Some(diesel) }
    }

    fn of_repetition(sql: &str) -> Self {
        let tokens = tokens(sql);
        let Some(Statement { verb, table, column, aggregate }) = Statement::parse(&tokens) else {
            return Self::words(GENERIC);
        };
        match (verb, column) {
            (Verb::Insert, _) => Self::code(
                format!("Insert all rows into {table} with one statement."),
                format!("INSERT INTO {table} (…) VALUES (…), (…), …"),
                format!("insert_into({table}::table).values(&rows)"),
            ),
            (Verb::Update, Some(column)) => Self::code(
                format!(
                    "Update all rows of {table} with one statement. Where each row gets another value, insert all rows with ON CONFLICT DO UPDATE."
                ),
                format!("UPDATE {table} SET … WHERE {column} IN (…)"),
                format!("update({table}::table.filter({table}::{column}.eq_any(&values)))"),
            ),
            (Verb::Delete, Some(column)) => Self::code(
                format!("Delete all rows of {table} with one statement."),
                format!("DELETE FROM {table} WHERE {column} IN (…)"),
                format!("delete({table}::table.filter({table}::{column}.eq_any(&values)))"),
            ),
            (Verb::Select, Some(column)) => Self::of_select(table, column, aggregate),
            (Verb::Select, None) => Self::words(
                "No column is compared with a single value: if the result is the same each time, load it once before the loop; otherwise load all rows with one statement.",
            ),
            (Verb::Update | Verb::Delete, None) => Self::words(GENERIC),
        }
    }

    fn of_select(table: &str, column: &str, aggregate: Option<&str>) -> Self {
        if let Some(function) = aggregate {
            let (call, select) = match function {
                "count" => ("count(*)".to_owned(), "count_star()".to_owned()),
                _ => (format!("{function}(…)"), format!("{function}(…)")),
            };
            return Self::code(
                format!("Compute {call} of {table} for all values of {column} with one statement."),
                format!("SELECT {column}, {call} FROM {table} WHERE {column} IN (…) GROUP BY {column}"),
                format!(
                    "{table}::table.filter({table}::{column}.eq_any(&values)).group_by({table}::{column}).select(({table}::{column}, {select}))"
                ),
            );
        }
        let sql = format!("SELECT … FROM {table} WHERE {column} IN (…)");
        let parent = column.strip_suffix("_id").filter(|parent| !parent.is_empty());
        match parent {
            Some(parent) if parent != singular(table) => {
                let parents = plural(parent);
                Self::code(
                    format!("Load {table} for all {parents} with one statement, and group the rows by {column}."),
                    sql,
                    format!(
                        "{}::belonging_to(&{parents}).load(conn)?.grouped_by(&{parents})",
                        pascal(&singular(table))
                    ),
                )
            }
            _ => Self::code(
                format!(
                    "Collect the values of {column} and load all rows of {table} with one statement, or join {table} in the statement that lists the values."
                ),
                sql,
                format!("{table}::table.filter({table}::{column}.eq_any(&values))"),
            ),
        }
    }

    /// Renders the suggestion.
    pub(crate) fn render(&self) -> Markup {
        html! {
            div.remedy {
                p { (self.text) }
                @if self.sql.is_some() || self.diesel.is_some() {
                    dl {
                        @for (name, code) in [("SQL", &self.sql), ("diesel", &self.diesel)] {
                            @if let Some(code) = code { div { dt { (name) } dd { code { (code) } } } }
                        }
                    }
                }
            }
        }
    }
}

const GENERIC: &str =
    "Issue one statement for all rows instead of one for each row: compare the column with a list of values, or join.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// An identifier or keyword without its quotes.
    Word(&'a str),
    Symbol(char),
}

/// Splits a shape into words and symbols. A shape contains no literals.
fn tokens(sql: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let (token, length) = if is_word(first) {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            (Some(Token::Word(&rest[..end])), end)
        } else if first == '"' || first == '`' {
            let inner = &rest[1..];
            let end = inner.find(first).unwrap_or(inner.len());
            (Some(Token::Word(&inner[..end])), (end + 2).min(rest.len()))
        } else {
            ((!first.is_whitespace()).then_some(Token::Symbol(first)), first.len_utf8())
        };
        tokens.extend(token);
        rest = &rest[length..];
    }
    tokens
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Select,
    Insert,
    Update,
    Delete,
}

/// The parts of a statement that name a remedy.
#[derive(Debug, PartialEq, Eq)]
struct Statement<'a> {
    verb: Verb,
    table: &'a str,
    /// The column that is compared with one value: a foreign key, else the key, else the first.
    column: Option<&'a str>,
    /// The function of the first selected expression, if it aggregates rows.
    aggregate: Option<&'static str>,
}

impl<'a> Statement<'a> {
    /// Returns `None` for other statements, and for names that are no plain identifiers.
    fn parse(tokens: &[Token<'a>]) -> Option<Self> {
        let is = |token: Option<&Token<'_>>, word: &str| matches!(token, Some(Token::Word(name)) if name.eq_ignore_ascii_case(word));
        let verb = match tokens.first()? {
            Token::Word(word) if word.eq_ignore_ascii_case("select") => Verb::Select,
            Token::Word(word) if word.eq_ignore_ascii_case("insert") => Verb::Insert,
            Token::Word(word) if word.eq_ignore_ascii_case("update") => Verb::Update,
            Token::Word(word) if word.eq_ignore_ascii_case("delete") => Verb::Delete,
            _ => return None,
        };
        let before_table = match verb {
            Verb::Select | Verb::Delete => outside_parentheses(tokens).find(|at| is(tokens.get(*at), "from"))?,
            Verb::Insert => tokens.iter().position(|token| is(Some(token), "into"))?,
            Verb::Update => 0,
        };
        let (table, _) = name(tokens, before_table + 1)?;
        let conditions = outside_parentheses(tokens).find(|at| is(tokens.get(*at), "where"));
        let compared: Vec<&str> = conditions.map(|at| compared(tokens, at + 1)).unwrap_or_default();
        let column = compared
            .iter()
            .find(|column| column.ends_with("_id"))
            .or_else(|| compared.iter().find(|column| **column == "id"))
            .or_else(|| compared.first())
            .copied();
        let aggregate = ["count", "sum", "avg", "min", "max"]
            .into_iter()
            .find(|function| is(tokens.get(1), function) && tokens.get(2) == Some(&Token::Symbol('(')));
        Some(Self { verb, table, column, aggregate })
    }
}

/// Returns the positions of the tokens that are in no parentheses.
fn outside_parentheses<'t>(tokens: &'t [Token<'_>]) -> impl Iterator<Item = usize> + 't {
    let mut depth = 0_u32;
    tokens.iter().enumerate().filter_map(move |(at, token)| {
        match token {
            Token::Symbol('(') => depth += 1,
            Token::Symbol(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0).then_some(at)
    })
}

/// Reads a name with its qualifiers. Returns its last part, and the position behind it.
fn name<'a>(tokens: &[Token<'a>], mut at: usize) -> Option<(&'a str, usize)> {
    loop {
        let Some(Token::Word(part)) = tokens.get(at) else { return None };
        at += 1;
        if tokens.get(at) == Some(&Token::Symbol('.')) {
            at += 1;
        } else {
            let is_plain = part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return is_plain.then_some((*part, at));
        }
    }
}

/// Returns the columns that a condition compares with one value.
fn compared<'a>(tokens: &[Token<'a>], from: usize) -> Vec<&'a str> {
    let mut columns = Vec::new();
    let mut at = from;
    while at < tokens.len() {
        match name(tokens, at) {
            Some((column, end)) => {
                if tokens.get(end..end + 2) == Some(&[Token::Symbol('='), Token::Symbol('?')]) {
                    columns.push(column);
                }
                at = end;
            }
            None => at += 1,
        }
    }
    columns
}

/// Returns the singular of an English table name, by the common rules.
fn singular(table: &str) -> String {
    if let Some(stem) = table.strip_suffix("ies") {
        return format!("{stem}y");
    }
    let sibilant = ["sses", "xes", "ches", "shes"].iter().any(|ending| table.ends_with(ending));
    let stem =
        if sibilant { table.strip_suffix("es") } else { table.strip_suffix('s').filter(|stem| !stem.ends_with('s')) };
    stem.unwrap_or(table).to_owned()
}

/// Returns the plural of an English noun, by the common rules.
fn plural(noun: &str) -> String {
    let vowel_before_y = ["ay", "ey", "oy", "uy"].iter().any(|ending| noun.ends_with(ending));
    match noun.strip_suffix('y') {
        Some(stem) if !vowel_before_y => format!("{stem}ies"),
        _ if ["s", "x", "ch", "sh"].iter().any(|ending| noun.ends_with(ending)) => format!("{noun}es"),
        _ => format!("{noun}s"),
    }
}

/// Returns the name of a type for a name of a table.
fn pascal(name: &str) -> String {
    name.split('_')
        .filter_map(|part| {
            let first = part.chars().next()?;
            Some(first.to_ascii_uppercase().to_string() + &part[first.len_utf8()..])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> (String, String) {
        let remedy = Remedy::of_repetition(sql);
        (remedy.sql.unwrap_or_default(), remedy.diesel.unwrap_or_default())
    }

    #[test]
    fn children_of_one_parent_are_an_association() {
        let (sql, diesel) = of(
            r#"SELECT "posts"."id", "posts"."title" FROM "posts" WHERE ("posts"."user_id" = ?) ORDER BY "posts"."id" LIMIT ?"#,
        );
        assert_eq!(sql, "SELECT … FROM posts WHERE user_id IN (…)");
        assert_eq!(diesel, "Post::belonging_to(&users).load(conn)?.grouped_by(&users)");
        let (_, diesel) = of("select * from `order_entries` where `deleted` = ? and `company_id` = ?");
        assert_eq!(diesel, "OrderEntry::belonging_to(&companies).load(conn)?.grouped_by(&companies)");
    }

    #[test]
    fn rows_by_their_key_are_a_list_of_keys() {
        for sql in [
            r#"SELECT "users"."name" FROM "users" WHERE ("users"."id" = ?)"#,
            r#"SELECT name FROM public.users WHERE id = ? AND name <> ?"#,
        ] {
            assert_eq!(of(sql).1, "users::table.filter(users::id.eq_any(&values))", "{sql}");
        }
        let (_, diesel) = of("SELECT name FROM users WHERE user_id = ?");
        assert_eq!(
            diesel, "users::table.filter(users::user_id.eq_any(&values))",
            "a key that is named after its table"
        );
    }

    #[test]
    fn aggregates_are_grouped() {
        let (sql, diesel) = of(r#"SELECT COUNT(*) FROM "posts" WHERE ("posts"."user_id" = ?)"#);
        assert_eq!(sql, "SELECT user_id, count(*) FROM posts WHERE user_id IN (…) GROUP BY user_id");
        assert!(diesel.contains(".group_by(posts::user_id).select((posts::user_id, count_star()))"), "{diesel}");
    }

    #[test]
    fn writes_are_batched() {
        assert_eq!(of("INSERT INTO posts (title) VALUES (?)").1, "insert_into(posts::table).values(&rows)");
        assert_eq!(of("UPDATE posts SET seen = ? WHERE id = ?").0, "UPDATE posts SET … WHERE id IN (…)");
        assert_eq!(of("DELETE FROM posts WHERE id = ?").0, "DELETE FROM posts WHERE id IN (…)");
    }

    #[test]
    fn other_statements_have_words_only() {
        for sql in [
            "",
            "WITH x AS (SELECT ?) SELECT * FROM x",
            "SELECT ? FROM (SELECT ?) AS a WHERE b = ?",
            r#"SELECT * FROM "<b>" WHERE id = ?"#,
            "SELECT now()",
            "SELECT extract(year FROM x)",
            "UPDATE \"",
            "SELECT * FROM ünits WHERE id = ?",
        ] {
            assert_eq!(Remedy::of_repetition(sql), Remedy::words(GENERIC), "{sql}");
        }
        for sql in ["SELECT id FROM users", r#"SELECT * FROM "unclosed"#] {
            assert_eq!(of(sql), (String::new(), String::new()), "{sql}");
        }
        // A condition of a subquery is not that of the statement.
        assert_eq!(of("SELECT id FROM users WHERE (SELECT max(id) FROM posts) > ?"), (String::new(), String::new()));
    }
}
