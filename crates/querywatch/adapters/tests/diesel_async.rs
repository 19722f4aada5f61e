//! diesel-async on SQLite with `BlockingInScope`.

use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection as _, RunQueryDsl, SimpleAsyncConnection as _};
use querywatch::{BlockingInScope, Scope, Watch};
use querywatch_adapters::{TABLE, assert_n_plus_one};

diesel::table! {
    items (id) {
        id -> Integer,
        name -> Text,
    }
}

type AsyncSqlite = SyncConnectionWrapper<SqliteConnection, BlockingInScope>;

async fn connect(watch: &Watch) -> AsyncSqlite {
    let mut conn = SyncConnectionWrapper::new(SqliteConnection::establish(":memory:").unwrap());
    conn.batch_execute(TABLE).await.unwrap();
    conn.set_instrumentation(watch.instrumentation());
    conn
}

#[tokio::test(flavor = "multi_thread")]
async fn n_plus_one() {
    let watch = Watch::builder().build();
    let mut conn = connect(&watch).await;
    let scope = Scope::new(&watch, "GET /items").run(async {
        for id in 0..9 {
            RunQueryDsl::load::<(i32, String)>(items::table.filter(items::id.eq(id)), &mut conn).await.unwrap();
        }
    });
    let (_, report) = scope.await;
    assert_n_plus_one(&report, "SELECT `items`.`id`, `items`.`name` FROM `items` WHERE (`items`.`id` = ?)");
    report.assert_no_unscoped();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_holds() {
    let watch = Watch::builder().build();
    let mut conn = connect(&watch).await;
    let scope = Scope::new(&watch, "GET /items").run(async {
        let rows = RunQueryDsl::load::<(i32, String)>(items::table.filter(items::id.eq_any([1, 2])), &mut conn);
        assert_eq!(rows.await.unwrap().len(), 2);
    });
    scope.await.1.assert_budget(1);
}
