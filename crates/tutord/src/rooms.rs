//! The order of the modules of this crate: each imports only from modules below it.
//!
//! `docs/ARCHITECTURE.md` lists the modules from the top. Modules in one line do not import from each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The mark before the list in `docs/ARCHITECTURE.md`.
const MARK: &str = "<!-- order of modules -->\n```text\n";

/// Returns the level of each module in a list: 0 is the top.
fn levels(document: &str) -> BTreeMap<&str, usize> {
    let (_, list) = document.split_once(MARK).unwrap();
    let (list, _) = list.split_once("```").unwrap();
    let lines = list.lines().map(|line| line.split("  ").next().unwrap_or_default());
    lines.enumerate().flat_map(|(level, line)| line.split_whitespace().map(move |name| (name, level))).collect()
}

/// Returns the modules of this crate that a source text imports or names.
fn imports(source: &str) -> BTreeSet<&str> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let paths = code.flat_map(|line| line.split("crate::").skip(1));
    let mut found: BTreeSet<&str> = paths.clone().map(first_name).filter(|name| !name.is_empty()).collect();
    // `use crate::{a, b::C};`
    found.extend(paths.filter_map(|path| path.strip_prefix('{')).flat_map(top_names));
    found
}

fn first_name(path: &str) -> &str {
    path.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// Returns the first name of each path in a list that ends with `}`.
fn top_names(list: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let mut parts = vec![];
    let mut begin = 0;
    for (index, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&list[begin..index]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[begin..index]);
                begin = index + 1;
            }
            _ => {}
        }
    }
    parts.into_iter().map(|part| first_name(part.trim())).filter(|name| !name.is_empty()).collect()
}

/// Returns the imports of the source text of a module that do not lead downwards.
fn wrong<'a>(module: &str, source: &'a str, levels: &BTreeMap<&str, usize>) -> Vec<&'a str> {
    let own = levels[module];
    let named = imports(source).into_iter().filter(|name| *name != module);
    named.filter(|name| levels.get(name).is_some_and(|level| *level <= own)).collect()
}

/// Returns all source files below a directory.
fn sources(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let below = directories.iter().flat_map(|path| sources(path));
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    files.chain(below).collect()
}

#[test]
fn no_module_imports_from_a_module_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let document = std::fs::read_to_string(root.join("../../../docs/ARCHITECTURE.md")).unwrap();
    let levels = levels(&document);
    let mut arrows = BTreeSet::new();
    for path in sources(&root) {
        let inner = path.strip_prefix(&root).unwrap();
        let module = inner.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if ["lib", "rooms"].contains(&module) {
            continue;
        }
        assert!(levels.contains_key(module), "docs/ARCHITECTURE.md does not list the module {module}");
        let source = std::fs::read_to_string(&path).unwrap();
        let wrong = wrong(module, &source, &levels);
        assert!(wrong.is_empty(), "{} imports from {wrong:?}, which is not below {module}", inner.display());
        let named = imports(&source).into_iter().filter(|name| *name != module && levels.contains_key(name));
        arrows.extend(named.map(|name| (module.to_owned(), name.to_owned())));
    }
    let mut of: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (module, name) in arrows.iter().cloned() {
        of.entry(module).or_default().push(name);
    }
    for (module, names) in &of {
        println!("{module:<10} -> {}", names.join(", "));
    }
    assert!(arrows.len() > 40, "only {} imports between modules were found", arrows.len());
}

#[test]
fn an_import_from_above_is_detected() {
    let document = format!("{MARK}state           fills\nchat\nauth users  accounts\nhttp\n```\n");
    let levels = levels(&document);
    assert_eq!(levels, BTreeMap::from([("state", 0), ("chat", 1), ("auth", 2), ("users", 2), ("http", 3)]));
    let of_auth = |source| wrong("auth", source, &levels);
    assert_eq!(of_auth("use crate::http::error::ApiError;\nuse crate::auth::token;\n"), [""; 0]);
    assert_eq!(of_auth("use crate::chat::Chat;\n"), ["chat"]);
    assert_eq!(of_auth("use crate::users::Users;\n"), ["users"], "modules in one line are siblings");
    assert_eq!(of_auth("let page = crate::state::PAGE;\n"), ["state"], "a path without `use`");
    assert_eq!(of_auth("use crate::{http::{a, b}, state, chat::Chat};\n"), ["chat", "state"]);
    assert_eq!(of_auth("// Like crate::chat.\n/// [`crate::state`]\n"), [""; 0], "comments import nothing");
}
