//! The rules that exercises and achievements must follow, whether files or a model contain them.

use std::ops::RangeInclusive;

use tutord_core::model::{NewAchievement, NewExercise};

use crate::http::text::is_blank;

/// The allowed number of hints of an exercise.
const HINTS: RangeInclusive<usize> = 1..=10;
/// The allowed number of topics of an exercise.
const TOPICS: RangeInclusive<usize> = 1..=5;
/// The maximum number of learning objectives of an exercise.
const OBJECTIVES: usize = 5;
/// The allowed estimated time of an exercise, in minutes.
const MINUTES: RangeInclusive<i32> = 1..=480;

/// The violated rule of an entry. Texts begin with the name of the field.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::exercises) enum InvalidEntry {
    /// A list is too short or too long.
    #[error("{field}: must have {min} to {max} entries")]
    Count { field: &'static str, min: usize, max: usize },
    /// A text is too short or too long.
    #[error("{field}: must have {min} to {max} characters, has {count}")]
    Length { field: &'static str, min: usize, max: usize, count: usize },
    /// A text has no visible character.
    #[error("{field}: must have {min} to {max} visible characters, has none")]
    Blank { field: &'static str, min: usize, max: usize },
    /// A number is out of its range.
    #[error("{field}: must be between {min} and {max}")]
    Number { field: &'static str, min: i32, max: i32 },
    /// A number is too small.
    #[error("{field}: must be at least {min}")]
    Minimum { field: &'static str, min: i32 },
    /// A word has other characters, or is too long.
    #[error("{field}: `{text}` must have 1 to {max} of a-z, 0-9, -, +, # and .")]
    Word { field: &'static str, text: String, max: usize },
    /// A color is not in hexadecimal form.
    #[error("badge_color: must have the form #12ab9f")]
    Color,
    /// An earlier entry has the same slug.
    #[error("slug: already used at {place}")]
    Duplicate { place: String },
}

/// Checks an exercise from a file or a model.
pub(in crate::exercises) fn check_exercise(exercise: &NewExercise) -> Result<(), InvalidEntry> {
    length("title", &exercise.title, 3, 100)?;
    length("description", &exercise.description, 20, 1_000)?;
    length("instructions", &exercise.instructions, 50, 4_000)?;
    length("starter_code", exercise.starter_code.as_deref().unwrap_or_default(), 0, 10_000)?;
    length("solution", exercise.solution.as_deref().unwrap_or_default(), 1, 20_000)?;
    length("test_cases", exercise.test_cases.as_deref().unwrap_or_default(), 1, 4_000)?;
    word("language", &exercise.programming_language, 50)?;
    if !HINTS.contains(&exercise.hints.len()) {
        return Err(InvalidEntry::Count { field: "hints", min: *HINTS.start(), max: *HINTS.end() });
    }
    for hint in &exercise.hints {
        length("hints", hint, 10, 500)?;
    }
    if !TOPICS.contains(&exercise.topics.len()) {
        return Err(InvalidEntry::Count { field: "topics", min: *TOPICS.start(), max: *TOPICS.end() });
    }
    for topic in &exercise.topics {
        word("topics", topic, 40)?;
    }
    if exercise.learning_objectives.len() > OBJECTIVES {
        return Err(InvalidEntry::Count { field: "learning_objectives", min: 0, max: OBJECTIVES });
    }
    for objective in &exercise.learning_objectives {
        length("learning_objectives", objective, 5, 200)?;
    }
    if exercise.estimated_time_minutes.is_some_and(|minutes| !MINUTES.contains(&minutes)) {
        let (min, max) = (*MINUTES.start(), *MINUTES.end());
        return Err(InvalidEntry::Number { field: "estimated_time_minutes", min, max });
    }
    Ok(())
}

pub(super) fn check_achievement(achievement: &NewAchievement) -> Result<(), InvalidEntry> {
    check_slug(&achievement.slug)?;
    length("name", &achievement.name, 3, 100)?;
    length("title", &achievement.title, 3, 100)?;
    length("description", &achievement.description, 5, 500)?;
    length("requirement_description", &achievement.requirement_description, 5, 200)?;
    if achievement.requirement_value < 1 {
        return Err(InvalidEntry::Minimum { field: "requirement_value", min: 1 });
    }
    if !(0..=10_000).contains(&achievement.points) {
        return Err(InvalidEntry::Number { field: "points", min: 0, max: 10_000 });
    }
    let is_color = |color: &str| {
        color.len() == 7 && color.starts_with('#') && color[1..].bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    match &achievement.badge_color {
        Some(color) if !is_color(color) => Err(InvalidEntry::Color),
        _ => Ok(()),
    }
}

fn length(field: &'static str, text: &str, min: usize, max: usize) -> Result<(), InvalidEntry> {
    let count = text.trim().chars().count();
    if (min..=max).contains(&count) && (min == 0 || !is_blank(text)) {
        return Ok(());
    }
    if is_blank(text) {
        return Err(InvalidEntry::Blank { field, min, max });
    }
    Err(InvalidEntry::Length { field, min, max, count })
}

/// Returns `true` if a language, a topic or a slug may contain the character.
pub(in crate::exercises) fn is_word(character: char) -> bool {
    character.is_ascii_lowercase() || character.is_ascii_digit() || "-+#.".contains(character)
}

/// Checks a lower-case word for comma-separated lists and query strings.
fn word(field: &'static str, text: &str, max: usize) -> Result<(), InvalidEntry> {
    if (1..=max).contains(&text.len()) && text.chars().all(is_word) {
        return Ok(());
    }
    Err(InvalidEntry::Word { field, text: text.to_owned(), max })
}

pub(super) fn check_slug(slug: &str) -> Result<(), InvalidEntry> {
    word("slug", slug, 60)
}
