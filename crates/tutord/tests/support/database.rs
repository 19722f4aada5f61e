//! Access to the rows past the store.

use diesel::prelude::*;
use testbed::Postgres;

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    count: i64,
}

/// Returns the database's name in the URL of a PostgreSQL database.
pub(crate) fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

fn open_sqlite(path: &str) -> diesel::SqliteConnection {
    let mut connection = diesel::SqliteConnection::establish(path).unwrap();
    diesel::sql_query("PRAGMA busy_timeout = 5000").execute(&mut connection).unwrap();
    connection
}

/// Executes statements on a SQLite file or on a database of the shared PostgreSQL.
pub(crate) async fn execute(url: &str, sql: &str) {
    if let Some(path) = url.strip_prefix("sqlite://") {
        diesel::sql_query(sql).execute(&mut open_sqlite(path)).unwrap();
    } else {
        Postgres::shared().await.unwrap().client(name(url)).await.unwrap().batch_execute(sql).await.unwrap();
    }
}

/// Returns the number that a query returns on a SQLite file or on a database of the shared PostgreSQL.
pub(crate) async fn query_count(url: &str, sql: &str) -> i64 {
    let sql = format!("SELECT ({sql}) AS count");
    if let Some(path) = url.strip_prefix("sqlite://") {
        diesel::sql_query(sql).get_result::<Count>(&mut open_sqlite(path)).unwrap().count
    } else {
        let client = Postgres::shared().await.unwrap().client(name(url)).await.unwrap();
        client.query_one(&sql, &[]).await.unwrap().get(0)
    }
}

/// A PostgreSQL server with an empty database and a streaming replica called `near`.
pub(crate) struct ReplicatedPostgres {
    pub(crate) primary: Postgres,
    pub(crate) replica: Postgres,
    /// The URL of the database on the primary.
    pub(crate) url: String,
}

impl ReplicatedPostgres {
    pub(crate) async fn start() -> Self {
        let primary = Postgres::start(false).await.unwrap();
        let url = primary.empty_database().await.unwrap();
        let replica = primary.replica("near").await.unwrap();
        Self { primary, replica, url }
    }
}
