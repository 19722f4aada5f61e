//! Which line of the program issued a statement.

use std::backtrace::Backtrace;

/// Crates whose frames are on every stack; they are also known by the paths of their sources.
const MACHINERY: [&str; 14] = [
    "std",
    "core",
    "alloc",
    "tokio",
    "diesel",
    "diesel_async",
    "querywatch",
    "futures_util",
    "futures_core",
    "tokio_postgres",
    "deadpool",
    "tracing",
    "__rust_begin_short_backtrace",
    "rust_begin_unwind",
];

/// The innermost frame that is the program's own, such as `app::users::list (./src/users.rs:12:9)`.
///
/// Finding the names takes milliseconds: not for every statement.
pub(crate) fn of(backtrace: &Backtrace) -> Option<String> {
    innermost(&backtrace.to_string())
}

/// Reads the text of a backtrace: the names are in nothing else that is stable.
fn innermost(backtrace: &str) -> Option<String> {
    let mut lines = backtrace.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some((number, symbol)) = line.split_once(": ") else { continue };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let file = lines.peek().and_then(|next| next.strip_prefix("at "));
        if is_machinery(symbol) || file.is_some_and(is_elsewhere) {
            continue;
        }
        // An async function's own frame is a closure in it.
        let function = symbol.trim_end_matches("::{{closure}}");
        return Some(file.map_or_else(|| function.to_owned(), |file| format!("{function} ({file})")));
    }
    None
}

/// `<tokio::time::Timeout<F> as core::future::Future>::poll` is tokio's.
fn is_machinery(symbol: &str) -> bool {
    let path =
        symbol.trim_start_matches(['<', '&', '*', '(', '[']).trim_start_matches("dyn ").trim_start_matches("mut ");
    let first = path.split(|next: char| !next.is_alphanumeric() && next != '_').next().unwrap_or_default();
    first.is_empty() || MACHINERY.contains(&first)
}

/// In another's crate, or the standard library.
fn is_elsewhere(file: &str) -> bool {
    ["/rustc/", "/rustlib/", "/registry/src/", "/git/checkouts/"].iter().any(|part| file.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_own_frame_is_found() {
        let text = "   0: std::backtrace::Backtrace::create
             at /rustc/1/library/std/src/backtrace.rs:331:13
   1: <querywatch::probe::Probe as diesel::connection::Instrumentation>::on_connection_event
             at ./crates/querywatch/src/probe.rs:3:1
   2: <F as some_helper::Poll>::poll
             at /home/me/.cargo/registry/src/index-1/helper-1.0.0/src/lib.rs:9:9
   3: <core::pin::Pin<P> as core::future::future::Future>::poll
   4: shop::orders::list::{{closure}}::{{closure}}
             at ./src/orders.rs:12:40
   5: shop::main
             at ./src/main.rs:3:5";
        assert_eq!(innermost(text).as_deref(), Some("shop::orders::list (./src/orders.rs:12:40)"));
        assert_eq!(innermost("   0: shop::orders::list::{{closure}}").as_deref(), Some("shop::orders::list"));
        assert_eq!(innermost("   0: std::rt::lang_start\n"), None);
        assert_eq!(innermost("disabled backtrace"), None);
    }
}
