//! A shop that loads the lines of each order one by one, and the resulting log lines.
//!
//! `cargo run -p querywatch --example n_plus_one`

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use querywatch::{Scope, Watch};

mod schema {
    diesel::table! {
        orders (id) {
            id -> Integer,
            customer -> Text,
        }
    }

    diesel::table! {
        lines (id) {
            id -> Integer,
            order_id -> Integer,
            article -> Text,
        }
    }
}
use schema::{lines, orders};

fn orders_one_by_one(conn: &mut SqliteConnection) -> QueryResult<Vec<(i32, Vec<String>)>> {
    let ids = orders::table.select(orders::id).load::<i32>(conn)?;
    let of = |id| Ok((id, lines::table.filter(lines::order_id.eq(id)).select(lines::article).load(conn)?));
    ids.into_iter().map(of).collect()
}

fn orders_at_once(conn: &mut SqliteConnection) -> QueryResult<Vec<(i32, String)>> {
    let ids = orders::table.select(orders::id).load::<i32>(conn)?;
    lines::table.filter(lines::order_id.eq_any(ids)).select((lines::order_id, lines::article)).load(conn)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let watch = Watch::builder().build();
    let mut conn = SqliteConnection::establish(":memory:")?;
    conn.batch_execute(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL);
         CREATE TABLE lines (id INTEGER PRIMARY KEY, order_id INTEGER NOT NULL, article TEXT NOT NULL);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO orders SELECT i, 'Ada' FROM n;
         INSERT INTO lines (order_id, article) SELECT id, 'tea' FROM orders",
    )?;
    conn.set_instrumentation(watch.instrumentation());

    let (orders, report) = Scope::new(&watch, "GET /orders").budget(3).run_sync(|| orders_one_by_one(&mut conn));
    println!("one by one: {} orders, {} statements, {:?}\n", orders?.len(), report.statements, report.db_time);
    let (lines, report) = Scope::new(&watch, "GET /orders").budget(3).run_sync(|| orders_at_once(&mut conn));
    println!("at once: {} lines, {} statements, {:?}\n", lines?.len(), report.statements, report.db_time);

    for shape in watch.shapes() {
        let stats = shape.since_start;
        println!("{:>3} × P50 {:>4} µs, longest {:>4} µs  {}", stats.calls, stats.p50_us, stats.max_us, shape.sql);
    }
    Ok(())
}
