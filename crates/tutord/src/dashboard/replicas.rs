//! The page Replicas: the streaming replicas, as the primary reports them.

use maud::{Markup, html};
use querywatch_axum::parts::{Columns, empty, table};
use querywatch_axum::{Section, View, format};
use tutord_core::operations::{Replica, ReplicaProgress};

use super::parts::query_failed;
use super::state::DashboardState;

pub(super) async fn view(state: &DashboardState) -> View {
    View {
        title: "Replicas".to_owned(),
        intro: html! {
            "Streaming replicas that are connected to the database server, and their lag. tutord reads and writes only on the server of "
            code { "DATABASE_URL" } "."
        },
        sections: vec![Section::new("replicas", "Connected", replicas(state).await)],
    }
}

async fn replicas(state: &DashboardState) -> Markup {
    match state.operations.replicas().await {
        Ok(replicas) if !replicas.is_empty() => connected(&replicas),
        Ok(_) if state.operations.backend() == "postgres" => none(),
        Ok(_) => empty("SQLite has no replicas."),
        Err(error) => query_failed(&error),
    }
}

fn none() -> Markup {
    html! {
        p.empty { "No replica is connected. To create one, on a machine with the same version of PostgreSQL:" }
        ol {
            li {
                "On the server: " code { "CREATE ROLE replicator LOGIN REPLICATION PASSWORD '…'" } ", and a line "
                code { "host replication replicator …" } " in " code { "pg_hba.conf" } "."
            }
            li {
                "On the new machine: "
                code { "pg_basebackup --dbname='host=… user=replicator application_name=replica1' --write-recovery-conf --pgdata=…" }
                ", and start PostgreSQL there."
            }
            li { "To let tutord read its lag: " (privilege()) }
        }
    }
}

fn privilege() -> Markup {
    html! { code { "GRANT pg_read_all_stats TO …" } " (the user of " code { "DATABASE_URL" } ") as a superuser." }
}

fn connected(replicas: &[Replica]) -> Markup {
    let columns =
        Columns::default().texts(["Name", "Address", "State", "Synchronous"]).numbers(["Lag in bytes", "Lag in time"]);
    let rows = html! {
        @for replica in replicas { (row(replica)) }
    };
    html! {
        @if replicas.iter().any(|replica| replica.progress.is_none()) {
            p.warn { "tutord's database user lacks the privilege to read their lag: " (privilege()) }
        }
        (table("Replicas of the server", "Write-ahead log that each replica has not replayed yet", &columns, &rows))
    }
}

fn row(replica: &Replica) -> Markup {
    html! {
        tr {
            th scope="row" { (replica.name) }
            @if let Some(ReplicaProgress { state, sync_state, lag_bytes, lag }) = &replica.progress {
                td { (replica.address.as_deref().unwrap_or("local")) }
                td { span.warn[state != "streaming"] { (state) } }
                td { (waited_for(sync_state)) }
                td.number { (lag_bytes.map_or_else(|| "–".to_owned(), format::bytes)) }
                td.number { (lag.map_or_else(|| "–".to_owned(), |lag| format::time(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX)))) }
            } @else {
                td colspan="5" { span.muted { "hidden" } }
            }
        }
    }
}

/// Describes a `sync_state`.
fn waited_for(sync_state: &str) -> &str {
    match sync_state {
        "async" => "no",
        "sync" => "yes",
        "potential" => "standby",
        other => other,
    }
}
