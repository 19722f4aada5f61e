//! The database's streaming replicas, as the primary sees them.

use maud::{Markup, html};
use tutord_store::store::{Replica, ReplicaProgress};

use super::format;
use super::view::{Section, View, empty, scrolling, unanswered};
use crate::app::App;

pub(super) async fn view(app: &App) -> View {
    View {
        title: "Replicas".to_owned(),
        intro: html! {
            "Streaming copies of the database server that are connected to it now, and how far behind it they are. tutord itself reads "
            "and writes on the server of " code { "DATABASE_URL" } " alone."
        },
        sections: vec![Section::new("replicas", "Connected", replicas(app).await)],
    }
}

async fn replicas(app: &App) -> Markup {
    match app.store.replicas().await {
        Ok(replicas) if !replicas.is_empty() => table(&replicas),
        Ok(_) if app.store.backend() == "postgres" => none(),
        Ok(_) => empty("SQLite has no replicas: its file is the only copy."),
        Err(error) => unanswered(&error),
    }
}

fn none() -> Markup {
    html! {
        p.empty { "No replica is connected. To make one, on a machine with the same version of PostgreSQL:" }
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
            li { "For tutord to see how far it is: " (privilege()) }
        }
    }
}

fn privilege() -> Markup {
    html! { code { "GRANT pg_read_all_stats TO …" } " (the user of " code { "DATABASE_URL" } ") as a superuser." }
}

fn table(replicas: &[Replica]) -> Markup {
    let table = html! {
        table {
            caption { "What each has still to replay" }
            thead { tr {
                @for name in ["Name", "Address", "State", "Commits wait for it"] { th scope="col" { (name) } }
                @for name in ["Bytes behind", "Time behind"] { th.number scope="col" { (name) } }
            } }
            tbody { @for replica in replicas { (row(replica)) } }
        }
    };
    html! {
        @if replicas.iter().any(|replica| replica.progress.is_none()) {
            p.warn { "tutord's database user may not see how far they are: " (privilege()) }
        }
        (scrolling("Replicas of the server", &table))
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

/// What a `sync_state` means.
fn waited_for(sync_state: &str) -> &str {
    match sync_state {
        "async" => "no",
        "sync" => "yes",
        "quorum" => "for enough of its group",
        "potential" => "when another is gone",
        other => other,
    }
}
