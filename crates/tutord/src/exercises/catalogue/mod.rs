//! Exercises and achievements in TOML files.
//!
//! A file contains `[[exercise]]` and `[[achievement]]` tables; `docs/catalogue.md` shows one. All files are read and
//! checked before anything is stored, so that an invalid file changes nothing.

mod rules;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use toml::Spanned;
use tutord_core::Store;
use tutord_core::model::{
    AchievementCategory, CatalogueCounts, Difficulty, ExerciseType, NewAchievement, NewExercise, Rarity, Requirement,
};

use rules::{InvalidEntry, check_achievement, check_slug};
pub(super) use rules::{check_exercise, is_word};

/// The files that ship with tutord.
const BUILT_IN: [(&str, &str); 7] = [
    ("achievements.toml", include_str!("../../../catalogue/achievements.toml")),
    ("go.toml", include_str!("../../../catalogue/go.toml")),
    ("java.toml", include_str!("../../../catalogue/java.toml")),
    ("javascript.toml", include_str!("../../../catalogue/javascript.toml")),
    ("python.toml", include_str!("../../../catalogue/python.toml")),
    ("rust.toml", include_str!("../../../catalogue/rust.toml")),
    ("sql.toml", include_str!("../../../catalogue/sql.toml")),
];

/// A validated catalogue.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// The exercises; their slugs are unique.
    pub exercises: Vec<NewExercise>,
    /// The achievements; their slugs are unique.
    pub achievements: Vec<NewAchievement>,
    /// The file and line of each slug.
    seen: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    exercise: Vec<Spanned<ExerciseEntry>>,
    #[serde(default)]
    achievement: Vec<Spanned<AchievementEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExerciseEntry {
    slug: String,
    title: String,
    language: String,
    difficulty: Difficulty,
    r#type: ExerciseType,
    topics: Vec<String>,
    description: String,
    instructions: String,
    starter_code: Option<String>,
    solution: String,
    hints: Vec<String>,
    test_cases: String,
    #[serde(default)]
    learning_objectives: Vec<String>,
    estimated_time_minutes: Option<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AchievementEntry {
    slug: String,
    name: String,
    title: String,
    description: String,
    category: AchievementCategory,
    rarity: Rarity,
    requirement: Requirement,
    requirement_value: i32,
    requirement_description: String,
    icon: Option<String>,
    badge_color: Option<String>,
    points: i32,
    #[serde(default)]
    hidden: bool,
}

impl From<ExerciseEntry> for NewExercise {
    fn from(entry: ExerciseEntry) -> Self {
        Self {
            slug: Some(entry.slug),
            title: entry.title,
            description: entry.description,
            instructions: entry.instructions.trim().to_owned(),
            starter_code: entry.starter_code,
            solution: Some(entry.solution),
            hints: entry.hints,
            exercise_type: entry.r#type,
            difficulty: entry.difficulty,
            programming_language: entry.language,
            topics: entry.topics,
            test_cases: Some(entry.test_cases.trim().to_owned()),
            learning_objectives: entry.learning_objectives,
            estimated_time_minutes: entry.estimated_time_minutes,
            generation_prompt: None,
        }
    }
}

impl From<AchievementEntry> for NewAchievement {
    fn from(entry: AchievementEntry) -> Self {
        Self {
            slug: entry.slug,
            name: entry.name,
            title: entry.title,
            description: entry.description,
            category: entry.category,
            rarity: entry.rarity,
            requirement: entry.requirement,
            requirement_value: entry.requirement_value,
            requirement_description: entry.requirement_description,
            icon: entry.icon,
            badge_color: entry.badge_color,
            points: entry.points,
            hidden: entry.hidden,
        }
    }
}

impl Catalogue {
    /// Returns the catalogue that ships with tutord.
    ///
    /// # Errors
    /// Returns an error if one of its files is invalid, which a test rules out.
    pub fn built_in() -> anyhow::Result<Self> {
        let mut catalogue = Self::default();
        for (name, text) in BUILT_IN {
            catalogue.add(name, text)?;
        }
        Ok(catalogue)
    }

    /// Reads a file, or all `.toml` files of a directory in the order of their names.
    ///
    /// # Errors
    /// Returns an error that names the file, the line and the reason.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        if path.is_dir() {
            for entry in path.read_dir().with_context(|| path.display().to_string())? {
                let file = entry?.path();
                if file.extension().is_some_and(|extension| extension == "toml") {
                    files.push(file);
                }
            }
            files.sort();
            if files.is_empty() {
                bail!("{}: contains no .toml file", path.display());
            }
        } else {
            files.push(path.to_owned());
        }
        let mut catalogue = Self::default();
        for file in files {
            let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            catalogue.add(&file.display().to_string(), &text)?;
        }
        Ok(catalogue)
    }

    /// Parses and adds the entries of one file.
    fn add(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, &span));
            anyhow::anyhow!("{name}:{line}: {}", error.message())
        })?;
        for entry in file.exercise {
            let line = line_of(text, &entry.span());
            let exercise = NewExercise::from(entry.into_inner());
            let slug = exercise.slug.clone().unwrap_or_default();
            let checked = check_slug(&slug).and_then(|()| check_exercise(&exercise));
            checked.map_err(|error| at(name, line, &slug, &error))?;
            self.check_unique(&format!("exercise {slug}"), name, line, &slug)?;
            self.exercises.push(exercise);
        }
        for entry in file.achievement {
            let line = line_of(text, &entry.span());
            let achievement = NewAchievement::from(entry.into_inner());
            let slug = achievement.slug.clone();
            check_achievement(&achievement).map_err(|error| at(name, line, &slug, &error))?;
            self.check_unique(&format!("achievement {slug}"), name, line, &slug)?;
            self.achievements.push(achievement);
        }
        Ok(())
    }

    /// Returns an error if an entry of this kind has the same slug.
    fn check_unique(&mut self, key: &str, name: &str, line: usize, slug: &str) -> anyhow::Result<()> {
        match self.seen.insert(key.to_owned(), format!("{name}:{line}")) {
            None => Ok(()),
            Some(place) => Err(at(name, line, slug, &InvalidEntry::Duplicate { place })),
        }
    }

    /// Stores new and changed entries, by slug, in one transaction.
    ///
    /// # Errors
    /// Returns an error if the database fails; nothing is loaded then.
    pub async fn load(&self, store: &dyn Store) -> anyhow::Result<CatalogueCounts> {
        store.load_catalogue(&self.exercises, &self.achievements).await.context("loading the catalogue")
    }

    /// Loads the catalogue that ships with tutord, unless this version is already loaded; returns `None` then.
    ///
    /// # Errors
    /// Returns an error if the database fails; nothing is loaded then, and the next start retries.
    pub async fn load_built_in(&self, store: &dyn Store) -> anyhow::Result<Option<CatalogueCounts>> {
        let version = Self::built_in_version();
        let loaded = store.load_built_in_catalogue(&version, &self.exercises, &self.achievements).await;
        loaded.context("loading the catalogue")
    }

    /// Returns a hash of the files that ship with tutord.
    fn built_in_version() -> String {
        let mut hash = Sha256::new();
        for (name, text) in BUILT_IN {
            hash.update(name);
            hash.update([0]);
            hash.update(text);
            hash.update([0]);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Adds the place of an entry to its error.
fn at(name: &str, line: usize, slug: &str, error: &InvalidEntry) -> anyhow::Error {
    anyhow::anyhow!("{name}:{line}: `{slug}`: {error}")
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_built_in_catalogue_covers_every_language_difficulty_and_type() {
        let catalogue = Catalogue::built_in().unwrap();
        assert!(catalogue.exercises.len() >= 60, "{}", catalogue.exercises.len());
        let mut kinds = HashSet::new();
        for exercise in &catalogue.exercises {
            kinds.insert((exercise.programming_language.clone(), exercise.difficulty.as_str()));
            kinds.insert((exercise.programming_language.clone(), exercise.exercise_type.as_str()));
        }
        let languages: HashSet<_> = kinds.iter().map(|(language, _)| language).collect();
        assert!(languages.len() >= 6, "{languages:?}");
        assert_eq!(kinds.len(), languages.len() * (Difficulty::ALL.len() + ExerciseType::ALL.len()));
        let values = |requirement| {
            let of_it = catalogue.achievements.iter().filter(move |wanted| wanted.requirement == requirement);
            of_it.map(|wanted| wanted.requirement_value).collect::<Vec<_>>()
        };
        assert_eq!(values(Requirement::Streak), [3, 7, 14, 30, 60, 100, 365]);
        assert_eq!(values(Requirement::Exercises), [1, 10, 25, 50, 100, 250, 500]);
        assert_eq!(values(Requirement::TopicLevel), [1, 2, 3]);
        assert_eq!((values(Requirement::PerfectGrades), values(Requirement::NoHintRun)), (vec![1], vec![5]));
    }

    const GOOD: &str = r#"
[[exercise]]
slug = "one"
title = "A title"
language = "rust"
difficulty = "easy"
type = "algorithm"
topics = ["loops"]
description = "What is to be built, in a sentence."
instructions = "Write `f` so that it gives what the test cases say, for every input that they name."
solution = "fn f() {}"
hints = ["Think of a loop."]
test_cases = "f() -> ()"
"#;

    fn refused(text: &str) -> String {
        Catalogue::default().add("some.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_line_the_entry_and_the_field() {
        Catalogue::default().add("some.toml", GOOD).unwrap();
        for (from, to, message) in [
            ("\"easy\"", "\"trivial\"", "some.toml:6: unknown variant `trivial`"),
            ("title = \"A title\"\n", "", "some.toml:2: missing field `title`"),
            ("language", "langauge", "some.toml:5: unknown field `langauge`"),
            ("[\"loops\"]", "[\"loops, strings\"]", "some.toml:2: `one`: topics: `loops, strings` must have"),
            ("[\"loops\"]", "[]", "some.toml:2: `one`: topics: must have 1 to 5 entries"),
            ("\"A title\"", "\"A\"", "some.toml:2: `one`: title: must have 3 to 100 characters, has 1"),
            ("[\"Think of a loop.\"]", "[]", "some.toml:2: `one`: hints: must have 1 to 10 entries"),
            (
                "test_cases",
                "estimated_time_minutes = 0\ntest_cases",
                "some.toml:2: `one`: estimated_time_minutes: must be",
            ),
            (
                "test_cases",
                "learning_objectives = [\"\u{200b}\"]\ntest_cases",
                "some.toml:2: `one`: learning_objectives:",
            ),
            ("\"A title\"", "\"\u{2800}\u{2800}\u{2800}\"", "some.toml:2: `one`: title: must have 3 to 100 visible"),
            ("\"one\"", "\"Not a slug\"", "some.toml:2: `Not a slug`: slug:"),
            ("\"one\"", "\"one", "some.toml:3: "),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let refusal = refused(&text);
            assert!(refusal.starts_with(message), "{refusal}");
        }
        assert!(refused(&GOOD.repeat(2)).starts_with("some.toml:15: `one`: slug: already used at some.toml:2"));
    }

    #[test]
    fn achievements_are_checked_too() {
        let good = "[[achievement]]\nslug = \"a\"\nname = \"Name\"\ntitle = \"Title\"\ndescription = \"Five or more.\"\n\
             category = \"streak\"\nrarity = \"rare\"\nrequirement = \"streak\"\nrequirement_value = 3\n\
             requirement_description = \"Three days.\"\nbadge_color = \"#12ab9F\"\npoints = 5\n";
        Catalogue::default().add("some.toml", good).unwrap();
        for (from, to, message) in [
            ("value = 3", "value = 0", "some.toml:1: `a`: requirement_value: must be at least 1"),
            ("points = 5", "points = -5", "some.toml:1: `a`: points: must be"),
            ("#12ab9F", "#12äb9", "some.toml:1: `a`: badge_color: must have the form"),
        ] {
            let refusal = refused(&good.replace(from, to));
            assert!(refusal.starts_with(message), "{refusal}");
        }
    }
}
