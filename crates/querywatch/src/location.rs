//! Source locations of statements.

use std::backtrace::Backtrace;

/// Crates whose frames are skipped if their source file is unknown.
const LIBRARIES: [&str; 12] = [
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

/// The trait that programs implement for connections of diesel-async to SQLite. Its frames are skipped.
const SPAWN_BLOCKING: &str = " as diesel_async::sync_connection_wrapper::SpawnBlocking>::";

/// Returns the innermost frame of the program's own code, such as `app::users::list (./src/users.rs:12:9)`.
///
/// Resolving the symbols takes milliseconds.
pub(crate) fn find(backtrace: &Backtrace) -> Option<String> {
    let directory = std::env::current_dir().unwrap_or_default();
    innermost(&backtrace.to_string(), &directory.to_string_lossy())
}

/// Returns what started the task or thread of a backtrace, if it is known, and the innermost frame of the program.
pub(crate) fn find_with_spawner(backtrace: &Backtrace) -> (Option<&'static str>, Option<String>) {
    let directory = std::env::current_dir().unwrap_or_default();
    let text = backtrace.to_string();
    (spawner(&text), innermost(&text, &directory.to_string_lossy()))
}

/// Returns what started a task or thread.
fn spawner(backtrace: &str) -> Option<&'static str> {
    // The innermost frame decides: the workers of tokio and the tests of libtest run on threads of their own.
    const FRAMES: [(&str, Option<&str>); 6] = [
        ("rayon_core::", Some("rayon")),
        ("tokio::runtime::blocking::task::BlockingTask", Some("tokio::task::spawn_blocking")),
        ("tokio::runtime::task::", Some("tokio::spawn")),
        ("test::run_test", None),
        ("std::thread::lifecycle::spawn_unchecked", Some("std::thread::spawn")),
        ("std::thread::Builder::spawn_unchecked", Some("std::thread::spawn")),
    ];
    let frame = |line: &str| FRAMES.iter().find(|(symbol, _)| line.contains(symbol)).map(|(_, spawner)| *spawner);
    backtrace.lines().find_map(frame).flatten()
}

/// Parses the text of a backtrace, which is its only stable form. `./` is the current directory.
fn innermost(backtrace: &str, directory: &str) -> Option<String> {
    let mut lines = backtrace.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let Some((number, symbol)) = line.split_once(": ") else { continue };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let file = lines.peek().and_then(|next| next.strip_prefix("at "));
        if symbol.contains(SPAWN_BLOCKING)
            || file.map_or_else(|| is_library_symbol(symbol), |file| is_library_file(file, directory))
        {
            continue;
        }
        // The frame of an async function is a closure. With line tables only, a closure has no other name.
        let function = symbol.trim_end_matches("::{{closure}}");
        return Some(match file {
            Some(file) if function.starts_with('{') => file.to_owned(),
            Some(file) => format!("{function} ({file})"),
            None => function.to_owned(),
        });
    }
    None
}

/// Returns whether a symbol belongs to a library. `<tokio::time::Timeout<F> as core::future::Future>::poll` belongs to tokio.
fn is_library_symbol(symbol: &str) -> bool {
    let path =
        symbol.trim_start_matches(['<', '&', '*', '(', '[']).trim_start_matches("dyn ").trim_start_matches("mut ");
    let first = path.split(|next: char| !next.is_alphanumeric() && next != '_').next().unwrap_or_default();
    first.is_empty() || LIBRARIES.contains(&first)
}

/// Returns whether a file belongs to a dependency, the standard library or this crate.
fn is_library_file(file: &str, directory: &str) -> bool {
    let absolute = match file.strip_prefix("./") {
        Some(rest) => format!("{directory}/{rest}"),
        None => file.replace('\\', "/"),
    };
    let others = ["/rustc/", "/rustlib/", "/registry/src/", "/git/checkouts/", "/querywatch/src/"];
    others.iter().any(|part| absolute.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_spawn_blocking_are_skipped() {
        let trace = "   0: <app::InPlace as diesel_async::sync_connection_wrapper::SpawnBlocking>::spawn_blocking\n\
                     \x20            at ./src/lib.rs:9:1\n   1: app::users::list::{{closure}}\n             at ./src/users.rs:12:9\n";
        assert_eq!(innermost(trace, "/home/app").as_deref(), Some("app::users::list (./src/users.rs:12:9)"));
    }

    #[test]
    fn the_innermost_frame_of_the_program_is_found() {
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
    fn less_debug_information_gives_less_detail() {
        let found = |text| innermost(text, "/home/me/shop");
        assert_eq!(found("  0: {async_block#0}\n  at ./src/orders.rs:1:2").as_deref(), Some("./src/orders.rs:1:2"));
        assert_eq!(found("  0: shop::orders::list::{{closure}}").as_deref(), Some("shop::orders::list"));
        assert_eq!(found("  0: std::rt::lang_start\n"), None);
        assert_eq!(found("disabled backtrace"), None);
    }
}
