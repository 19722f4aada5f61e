//! N+1 with tokio-postgres. Run: `DATABASE_URL=… cargo run --example tokio_postgres` in this directory.

use querywatch::{Scope, Watch};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let watch = Watch::builder().build();
    let (client, connection) = tokio_postgres::connect(&std::env::var("DATABASE_URL")?, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let sql = "SELECT relname FROM pg_class WHERE oid = $1";
    let scope = Scope::new(&watch, "GET /tables").run(async {
        for oid in 0..9_u32 {
            watch.timed(sql, client.query_opt(sql, &[&oid])).await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    });
    let (result, report) = scope.await;
    result?;
    println!("{} statements; {}", report.statements, report.findings[0]);
    Ok(())
}
