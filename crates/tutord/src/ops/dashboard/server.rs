//! What the database server itself counts: the statements of all its users.

use maud::{Markup, html};
use tutord_store::store::ServerStatement;

use super::format;
use super::view::{Section, View, empty, scrolling, unanswered};
use crate::app::App;

/// Rows of the table.
const MOST: i64 = 50;

pub(super) async fn view(app: &App) -> View {
    View {
        title: "Database server".to_owned(),
        intro: html! {
            "The statements that took the most time, as " code { "pg_stat_statements" } " counts them: of all processes and other programs, "
            "since the server's counters were reset."
        },
        sections: vec![Section::new("statements", "Statements", statements(app).await)],
    }
}

async fn statements(app: &App) -> Markup {
    match app.store.server_statements(MOST).await {
        Ok(Some(statements)) => table(&statements),
        Ok(None) if app.store.backend() == "postgres" => empty(
            "The server does not count: add pg_stat_statements to shared_preload_libraries, restart it, and run CREATE EXTENSION pg_stat_statements in this database.",
        ),
        Ok(None) => empty("SQLite counts nothing itself: all its statements are under Queries."),
        Err(error) => unanswered(&error),
    }
}

fn table(statements: &[ServerStatement]) -> Markup {
    let table = html! {
        table {
            caption { "The longest total time first" }
            thead { tr {
                th scope="col" { "Statement" }
                @for name in ["Calls", "Total time", "Mean", "Longest", "Rows"] { th.number scope="col" { (name) } }
            } }
            tbody {
                @for statement in statements {
                    tr {
                        th scope="row" { details { summary { code { (format::head(&statement.sql)) } } pre { code { (statement.sql) } } } }
                        td.number { (format::count(statement.calls.unsigned_abs())) }
                        @for ms in [statement.total_ms, statement.mean_ms, statement.max_ms] { td.number { (format::milliseconds(ms)) } }
                        td.number { (format::count(statement.rows.unsigned_abs())) }
                    }
                }
            }
        }
    };
    scrolling("Statements of the server", &table)
}
