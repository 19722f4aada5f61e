//! Connections to a table, and the log.

use std::cell::RefCell;
use std::io;
use std::sync::Once;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use querywatch::{ShapeSnapshot, Watch};
use testbed::Postgres;

diesel::table! {
    items (id) {
        id -> Integer,
        name -> Text,
    }
}

pub(crate) const TABLE: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO items VALUES (1, 'one'), (2, 'two'), (3, 'three')";

/// Connects a watch to a new in-memory database.
pub(crate) fn sqlite(watch: &Watch) -> SqliteConnection {
    let mut conn = SqliteConnection::establish(":memory:").unwrap();
    conn.batch_execute(TABLE).unwrap();
    conn.set_instrumentation(watch.instrumentation());
    conn
}

/// Connects a watch to a new database.
pub(crate) async fn postgres(watch: &Watch) -> AsyncPgConnection {
    let server = Postgres::shared().await.unwrap();
    let url = server
        .database_like("querywatch_template", async |url| {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            Ok(client.batch_execute(TABLE).await?)
        })
        .await
        .unwrap();
    let mut conn = AsyncPgConnection::establish(&url).await.unwrap();
    conn.set_instrumentation(watch.instrumentation());
    conn
}

/// Loads one row by its id.
pub(crate) fn name_of(conn: &mut SqliteConnection, id: i32) -> Option<String> {
    items::table.find(id).select(items::name).first(conn).optional().unwrap()
}

/// Returns the shape that starts with this text.
pub(crate) fn shape(watch: &Watch, start: &str) -> ShapeSnapshot {
    let shapes = watch.shapes();
    let found = shapes.iter().find(|shape| shape.sql.starts_with(start));
    found.unwrap_or_else(|| panic!("no shape begins with {start}: {shapes:#?}")).clone()
}

thread_local! {
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Returns the log lines of this thread as JSON. All tests share one subscriber: with several, parallel tests lose events.
pub(crate) fn logged(work: impl FnOnce()) -> Vec<serde_json::Value> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        tracing_subscriber::fmt().json().flatten_event(true).with_writer(|| ThreadLog).init();
    });
    LOG.take();
    work();
    let text = String::from_utf8(LOG.take()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

struct ThreadLog;

impl io::Write for ThreadLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
