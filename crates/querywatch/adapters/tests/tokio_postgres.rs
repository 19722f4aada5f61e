//! tokio-postgres by `timed`.

use querywatch::{Scope, Watch};
use querywatch_adapters::{TABLE, assert_n_plus_one};
use testbed::Postgres;
use tokio_postgres::Client;

const BY_ID: &str = "SELECT name FROM items WHERE id = $1";

async fn connect() -> Client {
    let server = Postgres::shared().await.unwrap();
    let url = server.empty_database().await.unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(TABLE).await.unwrap();
    client
}

#[tokio::test]
async fn n_plus_one() {
    let (watch, client) = (Watch::builder().build(), connect().await);
    let scope = Scope::new(&watch, "GET /items").run(async {
        for id in 0..9_i32 {
            watch.timed(BY_ID, client.query_opt(BY_ID, &[&id])).await.unwrap();
        }
    });
    assert_n_plus_one(&scope.await.1, "SELECT name FROM items WHERE id = ?");
}

#[tokio::test]
async fn a_budget_holds_and_failures_are_recorded() {
    let (watch, client) = (Watch::builder().build(), connect().await);
    let (all, broken) = ("SELECT name FROM items", "SELECT 1 / 0");
    let scope = Scope::new(&watch, "GET /items").run(async {
        assert_eq!(watch.timed(all, client.query(all, &[])).await.unwrap().len(), 3);
        watch.timed(broken, client.query(broken, &[])).await.unwrap_err();
    });
    let (_, report) = scope.await;
    report.assert_budget(2);
    assert_eq!((watch.totals().since_start.calls, watch.totals().since_start.errors), (2, 1));
}
