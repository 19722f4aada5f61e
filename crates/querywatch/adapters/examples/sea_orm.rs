//! N+1 with SeaORM, recorded by the layer for sqlx. Run: `cargo run --example sea_orm` in this directory.

use querywatch::{Scope, Watch};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DbErr};
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> Result<(), DbErr> {
    let watch = Watch::builder().build();
    tracing_subscriber::registry().with(watch.sqlx_layer()).init();
    let db = Database::connect(ConnectOptions::new("sqlite::memory:").max_connections(1).to_owned()).await?;
    db.execute_unprepared("CREATE TABLE items (id INTEGER, name TEXT)").await?;
    let scope = Scope::new(&watch, "GET /items").run(async {
        for id in 0..9 {
            db.execute_unprepared(&format!("SELECT name FROM items WHERE id = {id}")).await?;
        }
        Ok(())
    });
    let (result, report) = scope.await;
    println!("{} statements; {}", report.statements, report.findings[0]);
    result
}
