//! The words of generated rows.

use rand::{Rng, RngExt as _};

pub(super) const FIRST_NAMES: &[&str] = &[
    "Ada", "Alan", "Barbara", "Dennis", "Edsger", "Frances", "Grace", "Ken", "Leslie", "Margaret", "Niklaus", "Radia",
];

pub(super) const LANGUAGES: &[&str] = &["python", "javascript", "java", "go", "rust", "csharp", "cpp"];

pub(super) const TOPICS: &[&str] =
    &["arrays", "recursion", "sorting", "hash maps", "strings", "graphs", "trees", "concurrency", "testing", "sql"];

const OPENINGS: &[&str] = &[
    "I think",
    "Could it be that",
    "Let us see why",
    "Tell me how",
    "It looks as if",
    "What happens when",
    "Notice that",
    "Suppose that",
];

const SUBJECTS: &[&str] = &[
    "the loop",
    "my function",
    "this variable",
    "the recursive call",
    "the index",
    "an empty list",
    "the compiler",
    "the second test",
    "the borrowed value",
    "the hash map",
    "the query",
    "your base case",
];

const VERBS: &[&str] =
    &["returns", "changes", "skips", "compares", "shadows", "copies", "reads", "overwrites", "waits for", "depends on"];

const OBJECTS: &[&str] = &[
    "the last element",
    "its own result",
    "a reference to the caller",
    "one row too many",
    "the wrong branch",
    "the previous value",
    "a key that is missing",
    "the whole file",
    "an older version",
    "the first match",
];

pub(super) fn pick(random: &mut impl Rng, words: &'static [&'static str]) -> &'static str {
    words[random.random_range(0..words.len())]
}

pub(super) fn sentence(random: &mut impl Rng) -> String {
    let (opening, subject) = (pick(random, OPENINGS), pick(random, SUBJECTS));
    let (verb, object) = (pick(random, VERBS), pick(random, OBJECTS));
    format!("{opening} {subject} {verb} {object}.")
}
