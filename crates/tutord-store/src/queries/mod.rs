//! The typed queries, written once.
//!
//! Each file here is compiled twice: `postgres/mod.rs` and `sqlite/mod.rs` both declare these files as
//! their own modules by `#[path]`. Within a file, `super::Adapter` and `super::Conn` are those of the
//! database it is being compiled for, and `pipelined!` sends two statements in the way that database
//! likes. So the queries stay plain, concretely typed diesel code, checked against both databases.
//! This file belongs to neither; it holds what does not depend on the database.
