//! A watch over real connections: SQLite by diesel and diesel-async, and PostgreSQL.

mod fixture;

mod calls;
mod false_alarms;
mod findings;
mod postgres;
mod scopes;
mod slow;
mod sqlite;
mod wrapper;
