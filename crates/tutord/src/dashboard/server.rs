//! The page Server: statements of all users, as counted by the database server.

use maud::{Markup, html};
use querywatch_axum::parts::{Columns, empty, table};
use querywatch_axum::{Section, View, format};
use tutord_core::operations::ServerStatement;

use super::parts::query_failed;
use super::state::DashboardState;

/// The maximum number of rows of the table.
const MAX_ROWS: i64 = 50;

pub(super) async fn view(state: &DashboardState) -> View {
    View {
        title: "Database server".to_owned(),
        intro: html! {
            "The statements with the longest total time according to " code { "pg_stat_statements" } ", of all processes and other programs, "
            "since the last reset of the server's statistics."
        },
        sections: vec![Section::new("statements", "Statements", statements(state).await)],
    }
}

async fn statements(state: &DashboardState) -> Markup {
    match state.operations.server_statements(MAX_ROWS).await {
        Ok(Some(statements)) => render(&statements),
        Ok(None) if state.operations.backend() == "postgres" => empty(
            "The server does not count statements: add pg_stat_statements to shared_preload_libraries, restart the server, and run CREATE EXTENSION pg_stat_statements in this database.",
        ),
        Ok(None) => empty("SQLite keeps no statistics: the Queries page shows all statements."),
        Err(error) => query_failed(&error),
    }
}

fn render(statements: &[ServerStatement]) -> Markup {
    let columns = Columns::default().texts(["Statement"]).numbers(["Calls", "Total time", "Mean", "Longest", "Rows"]);
    let rows = html! {
        @for statement in statements {
            tr {
                th scope="row" {
                    details { summary { code { (format::head(&statement.sql)) } } pre { code { (statement.sql) } } }
                }
                td.number { (format::count(statement.calls.unsigned_abs())) }
                @for ms in [statement.total_ms, statement.mean_ms, statement.max_ms] {
                    td.number { (format::milliseconds(ms)) }
                }
                td.number { (format::count(statement.rows.unsigned_abs())) }
            }
        }
    };
    table("Statements of the server", "Longest total time first", &columns, &rows)
}
