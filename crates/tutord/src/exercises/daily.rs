//! The choice of the daily exercise.
//!
//! The candidates, in this order: a skipped exercise that is due again; a generated exercise, if a model is configured;
//! a catalogue exercise that the student has not started, if possible of the student's language and difficulty. Two
//! concurrent requests may choose different exercises; the database stores the first choice.

use rand::seq::IndexedRandom as _;
use tutord_core::LocalDate;
use tutord_core::model::{
    Candidate, CandidateFilter, DailyChoice, Difficulty, ExerciseType, HistoryItem, SkillLevel, User,
};

use super::catalogue::is_word;
use super::generator::{self, ExerciseSpec};
use super::state::ExercisesState;
use crate::http::error::ApiError;

/// The number of catalogue exercises to consider.
const CANDIDATES: i64 = 50;
/// The number of newest exercises whose topics the next exercise should avoid.
const RECENT: i64 = 3;

/// Chooses an exercise. Returns `None` if none is left.
pub(super) async fn choose(
    state: &ExercisesState,
    student: &User,
    day: LocalDate,
) -> Result<Option<DailyChoice>, ApiError> {
    if let Some(id) = state.store.due_exercise(student.id, day).await? {
        return Ok(Some(DailyChoice::Existing(id)));
    }
    let difficulty = difficulty_of(state, student).await?;
    let recent = state.store.ended_exercises(student.id, RECENT).await?;
    if state.llm.provider.is_some() {
        let spec = ExerciseSpec {
            language: language_of(student).unwrap_or_else(|| DEFAULT_LANGUAGE.to_owned()),
            difficulty,
            exercise_type: next_type(&recent),
            topic: None,
        };
        match generator::exercise(state, student, &spec).await {
            Ok(exercise) => return Ok(Some(DailyChoice::Generated(Box::new(exercise)))),
            Err(error) => {
                tracing::warn!(code = error.code(), "could not generate the daily exercise; using the catalogue");
            }
        }
    }
    let language = language_of(student);
    let choices = [(language.clone(), Some(difficulty)), (language, None), (None, Some(difficulty)), (None, None)];
    for (language, difficulty) in choices {
        let candidates =
            state.store.daily_candidates(student.id, &CandidateFilter { language, difficulty }, CANDIDATES).await?;
        if let Some(id) = pick(&candidates, &recent) {
            return Ok(Some(DailyChoice::Existing(id)));
        }
    }
    Ok(None)
}

/// The default language of exercises.
pub(super) const DEFAULT_LANGUAGE: &str = "python";

/// Returns the student's language as the catalogue spells it, or `None` if no character of it is valid in a catalogue.
pub(super) fn language_of(student: &User) -> Option<String> {
    student.programming_language.as_deref().map(spelled).filter(|language| !language.is_empty())
}

fn spelled(language: &str) -> String {
    match language.trim().to_lowercase().as_str() {
        "c++" => "cpp".to_owned(),
        "c#" => "csharp".to_owned(),
        "golang" => "go".to_owned(),
        "js" => "javascript".to_owned(),
        "ts" => "typescript".to_owned(),
        // Students can enter any text, but an exercise in `Python (3.12)` must pass the checks of the catalogue.
        other => other.replace(' ', "-").chars().filter(|character| is_word(*character)).collect(),
    }
}

/// Returns the difficulty set for the student, or the one that suits their skill level.
pub(super) async fn difficulty_of(state: &ExercisesState, student: &User) -> Result<Difficulty, ApiError> {
    let set = state.store.exercise_difficulty(student.id).await?;
    Ok(set.unwrap_or(match student.skill_level {
        None | Some(SkillLevel::Beginner) => Difficulty::Easy,
        Some(SkillLevel::Intermediate) => Difficulty::Medium,
        Some(SkillLevel::Advanced | SkillLevel::Expert) => Difficulty::Hard,
    }))
}

/// Returns the exercise type after that of the newest exercise, so that the types alternate.
fn next_type(recent: &[HistoryItem]) -> ExerciseType {
    let newest = recent.first().and_then(|item| ExerciseType::ALL.iter().position(|kind| *kind == item.exercise_type));
    ExerciseType::ALL[newest.map_or(0, |index| (index + 1) % ExerciseType::ALL.len())]
}

/// Returns one of the exercises that share the fewest topics with the newest exercises.
fn pick(candidates: &[Candidate], recent: &[HistoryItem]) -> Option<i64> {
    let shared = |candidate: &Candidate| {
        let topics = recent.iter().flat_map(|item| item.topics.split(','));
        topics.filter(|topic| candidate.topics.split(',').any(|own| own == *topic)).count()
    };
    let fewest = candidates.iter().map(shared).min()?;
    let best: Vec<i64> =
        candidates.iter().filter(|candidate| shared(candidate) == fewest).map(|candidate| candidate.id).collect();
    best.choose(&mut rand::rng()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_spelled_as_in_the_catalogue() {
        for (written, language) in [
            (" Rust ", "rust"),
            ("C++", "cpp"),
            ("Visual Basic", "visual-basic"),
            ("F#", "f#"),
            ("Python (3.12)", "python-3.12"),
            ("日本語", ""),
        ] {
            assert_eq!(spelled(written), language);
        }
    }
}
