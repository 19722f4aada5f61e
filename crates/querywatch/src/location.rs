//! Which line of the program issued a statement.

use std::backtrace::Backtrace;

/// Crates that are on every stack, for frames of which the source is not known.
const MACHINERY: [&str; 12] = [
    "std",
    "core",
    "alloc",
    "__rustc",
    "tokio",
    "diesel",
    "diesel_async",
    "querywatch",
    "futures_util",
    "futures_core",
    "tokio_postgres",
    "tracing",
];

/// What a program implements for diesel-async's connections to SQLite, which issues nothing by itself.
const PLUMBING: &str = " as diesel_async::sync_connection_wrapper::SpawnBlocking>::";

/// The innermost frame that is the program's own, such as `app::users::list (./src/users.rs:12:9)`.
///
/// Finding the names takes milliseconds: not for every statement.
pub(crate) fn of(backtrace: &Backtrace) -> Option<String> {
    let here = std::env::current_dir().unwrap_or_default();
    innermost(&backtrace.to_string(), &here.to_string_lossy())
}

/// Reads the text of a backtrace, the only form that is stable. In it `./` is the current directory.
fn innermost(backtrace: &str, here: &str) -> Option<String> {
    let mut lines = backtrace.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some((number, symbol)) = line.split_once(": ") else { continue };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let file = lines.peek().and_then(|next| next.strip_prefix("at "));
        if symbol.contains(PLUMBING) || file.map_or_else(|| is_machinery(symbol), |file| is_elsewhere(file, here)) {
            continue;
        }
        // An async function's own frame is a closure in it; with line tables alone a closure has no other name.
        let function = symbol.trim_end_matches("::{{closure}}");
        return Some(match file {
            Some(file) if function.starts_with('{') => file.to_owned(),
            Some(file) => format!("{function} ({file})"),
            None => function.to_owned(),
        });
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

/// In another's crate, the standard library, or this crate.
fn is_elsewhere(file: &str, here: &str) -> bool {
    let absolute = match file.strip_prefix("./") {
        Some(rest) => format!("{here}/{rest}"),
        None => file.replace('\\', "/"),
    };
    let others = ["/rustc/", "/rustlib/", "/registry/src/", "/git/checkouts/", "/querywatch/src/"];
    others.iter().any(|part| absolute.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_own_way_to_block_is_passed_over() {
        let trace = "   0: <app::InPlace as diesel_async::sync_connection_wrapper::SpawnBlocking>::spawn_blocking\n\
                     \x20            at ./src/lib.rs:9:1\n   1: app::users::list::{{closure}}\n             at ./src/users.rs:12:9\n";
        assert_eq!(innermost(trace, "/home/app").as_deref(), Some("app::users::list (./src/users.rs:12:9)"));
    }

    #[test]
    fn the_innermost_own_frame_is_found() {
        let text = "   0: std::backtrace::Backtrace::create
             at /rustc/1/library/std/src/backtrace.rs:331:13
   1: repeat
             at ./src/scope.rs:3:1
   2: <F as some_helper::Poll>::poll
             at /home/me/.cargo/registry/src/index-1/helper-1.0.0/src/lib.rs:9:9
   3: <core::pin::Pin<P> as core::future::future::Future>::poll
   4: shop::orders::list::{{closure}}::{{closure}}
             at /home/me/shop/src/orders.rs:12:40
   5: shop::main
             at /home/me/shop/src/main.rs:3:5";
        let found = innermost(text, "/home/me/querywatch");
        assert_eq!(found.as_deref(), Some("shop::orders::list (/home/me/shop/src/orders.rs:12:40)"));
        assert_eq!(innermost(text, "/home/me/shop").as_deref(), Some("repeat (./src/scope.rs:3:1)"));
    }

    #[test]
    fn less_debug_information_tells_less() {
        let found = |text| innermost(text, "/home/me/shop");
        assert_eq!(found("  0: {async_block#0}\n  at ./src/orders.rs:1:2").as_deref(), Some("./src/orders.rs:1:2"));
        assert_eq!(found("  0: shop::orders::list::{{closure}}").as_deref(), Some("shop::orders::list"));
        assert_eq!(found("  0: std::rt::lang_start\n"), None);
        assert_eq!(found("disabled backtrace"), None);
    }
}
