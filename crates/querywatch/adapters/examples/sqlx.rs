//! N+1 with sqlx. Run: `cargo run --example sqlx` in this directory.

use querywatch::{Scope, Watch};
use tracing_subscriber::prelude::*;

#[tokio::main]
async fn main() -> Result<(), sqlx::Error> {
    let watch = Watch::builder().build();
    tracing_subscriber::registry().with(watch.sqlx_layer()).init();
    let options = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
    let pool = options.connect("sqlite::memory:").await?;
    sqlx::query("CREATE TABLE items (id INTEGER, name TEXT)").execute(&pool).await?;
    let scope = Scope::new(&watch, "GET /items").run(async {
        for id in 0..9 {
            sqlx::query("SELECT name FROM items WHERE id = ?").bind(id).fetch_optional(&pool).await?;
        }
        Ok(())
    });
    let (result, report) = scope.await;
    println!("{} statements; {}", report.statements, report.findings[0]);
    result
}
