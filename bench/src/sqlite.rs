//! The limit of a request's statements on SQLite: a loop around prepared ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use diesel::connection::{LoadConnection, SimpleConnection as _};
use diesel::deserialize::FromSql;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::row::{Field as _, Row as _};
use diesel::sql_types::{BigInt, Binary, Text, Untyped};
use diesel::sqlite::{Sqlite, SqliteType};

use crate::cores::on_server_cores;
use crate::proxy::IssuedStatement;

/// Repeats statements from PostgreSQL on a SQLite file with the same rows.
pub(crate) struct StatementLoop {
    file: PathBuf,
    statements: Vec<Statement>,
}

impl StatementLoop {
    pub(crate) fn new(file: &Path, issued: &[IssuedStatement]) -> Self {
        let statements = issued.iter().map(|statement| Statement {
            pieces: statement.pieces().map(|(sql, value)| (sql.to_owned(), value)).collect(),
            values: statement.values.iter().map(|value| value.as_deref().map_or(Value::Null, Value::of)).collect(),
        });
        Self { file: file.to_owned(), statements: statements.collect() }
    }

    /// Returns the repetitions per second, with a connection for each of the servers' cores.
    pub(crate) fn run(&self, round: Duration) -> anyhow::Result<f64> {
        // Once before it counts, for an error and for the rows.
        anyhow::ensure!(self.once(&mut self.open()?)? > 0, "no rows: not the same data");
        on_server_cores(round, || {
            let mut connection = self.open()?;
            Ok(move || {
                let _ = std::hint::black_box(self.once(&mut connection));
            })
        })
    }

    fn open(&self) -> anyhow::Result<SqliteConnection> {
        let mut connection = SqliteConnection::establish(self.file.to_str().context("a path")?)?;
        connection.batch_execute("PRAGMA query_only = ON; PRAGMA cache_size = -16000;")?;
        Ok(connection)
    }

    /// Reads every field of every row; returns the number of fields.
    fn once(&self, connection: &mut SqliteConnection) -> anyhow::Result<usize> {
        let mut fields = 0;
        for statement in &self.statements {
            for row in LoadConnection::load(connection, statement)? {
                let row = row?;
                for index in 0..row.field_count() {
                    let field = row.get(index).context("a field")?;
                    let Some(value) = field.value() else { continue };
                    match value.value_type() {
                        Some(SqliteType::Long | SqliteType::Integer) => {
                            std::hint::black_box(<i64 as FromSql<BigInt, Sqlite>>::from_sql(value)).ok();
                        }
                        Some(SqliteType::Text) => {
                            std::hint::black_box(<String as FromSql<Text, Sqlite>>::from_sql(value)).ok();
                        }
                        _ => {}
                    }
                    fields += 1;
                }
            }
        }
        Ok(fields)
    }
}

/// A statement with its values.
struct Statement {
    /// The text before each value, with the value's number.
    pieces: Vec<(String, Option<usize>)>,
    values: Vec<Value>,
}

enum Value {
    Number(i64),
    Bytes(Vec<u8>),
    Text(String),
    Null,
}

impl Value {
    /// Of PostgreSQL's text.
    fn of(text: &str) -> Self {
        let bytes = |hex: &str| (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16)).collect();
        if let Ok(number) = text.parse() {
            return Self::Number(number);
        }
        match text.strip_prefix("\\x").map(bytes) {
            Some(Ok(bytes)) => Self::Bytes(bytes),
            _ => Self::Text(text.to_owned()),
        }
    }
}

impl QueryFragment<Sqlite> for Statement {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        for (sql, value) in &self.pieces {
            out.push_sql(sql);
            match value.and_then(|number| self.values.get(number - 1)) {
                Some(Value::Number(number)) => out.push_bind_param::<BigInt, _>(number)?,
                Some(Value::Bytes(bytes)) => out.push_bind_param::<Binary, _>(bytes)?,
                Some(Value::Text(text)) => out.push_bind_param::<Text, _>(text)?,
                Some(Value::Null) => out.push_sql("NULL"),
                None => {}
            }
        }
        Ok(())
    }
}

/// Kept prepared by its text.
impl QueryId for Statement {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Statement {
    type SqlType = Untyped;
}
