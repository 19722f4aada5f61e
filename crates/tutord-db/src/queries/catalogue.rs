//! The rows of the catalogue: exercises and achievements, inserted or changed in place.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::{CatalogueCounts, Difficulty, Exercise, ExerciseType, NewAchievement, NewExercise};
use tutord_core::schema::{achievements, exercises};
use tutord_core::{Result, Timestamp};

use super::Conn;
use super::rows::exercise_row;

pub(super) async fn insert_exercise(
    conn: &mut Conn,
    new: &NewExercise,
    owner_id: Option<i64>,
) -> QueryResult<Exercise> {
    diesel::insert_into(exercises::table)
        .values((
            ExerciseTexts::from(new),
            exercises::slug.eq(&new.slug),
            exercises::generated_by_ai.eq(new.generation_prompt.is_some()),
            exercises::generation_prompt.eq(&new.generation_prompt),
            exercises::owner_id.eq(owner_id),
            exercises::created_at.eq(Timestamp::now()),
        ))
        .returning(exercise_row())
        .get_result(conn)
        .await
}

/// The columns of an existing exercise that a catalogue may change.
#[derive(Debug, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = exercises, treat_none_as_null = true)]
struct ExerciseTexts {
    title: String,
    description: String,
    instructions: String,
    starter_code: Option<String>,
    solution: Option<String>,
    hints: String,
    exercise_type: ExerciseType,
    difficulty: Difficulty,
    programming_language: String,
    topics: String,
    test_cases: Option<String>,
    learning_objectives: String,
    estimated_time_minutes: Option<i32>,
}

impl From<&NewExercise> for ExerciseTexts {
    fn from(new: &NewExercise) -> Self {
        Self {
            title: new.title.clone(),
            description: new.description.clone(),
            instructions: new.instructions.clone(),
            starter_code: new.starter_code.clone(),
            solution: new.solution.clone(),
            hints: serde_json::Value::from(new.hints.clone()).to_string(),
            exercise_type: new.exercise_type,
            difficulty: new.difficulty,
            programming_language: new.programming_language.clone(),
            topics: new.topics.join(","),
            test_cases: new.test_cases.clone(),
            learning_objectives: serde_json::Value::from(new.learning_objectives.clone()).to_string(),
            estimated_time_minutes: new.estimated_time_minutes,
        }
    }
}

pub(super) async fn load(
    conn: &mut Conn,
    exercises: &[NewExercise],
    achievements: &[NewAchievement],
) -> Result<CatalogueCounts> {
    let mut loaded = CatalogueCounts::default();
    for exercise in exercises {
        load_exercise(conn, exercise, &mut loaded).await?;
    }
    for achievement in achievements {
        load_achievement(conn, achievement, &mut loaded).await?;
    }
    Ok(loaded)
}

async fn load_exercise(conn: &mut Conn, new: &NewExercise, loaded: &mut CatalogueCounts) -> Result<()> {
    let found = exercises::table
        .filter(exercises::slug.eq(&new.slug))
        .select((exercises::id, ExerciseTexts::as_select()))
        .first::<(i64, ExerciseTexts)>(conn)
        .await
        .optional()?;
    let texts = ExerciseTexts::from(new);
    match found {
        None => {
            insert_exercise(conn, new, None).await?;
            loaded.created += 1;
        }
        Some((_, stored)) if stored == texts => loaded.unchanged += 1,
        Some((id, _)) => {
            diesel::update(exercises::table.find(id)).set(texts).execute(conn).await?;
            loaded.updated += 1;
        }
    }
    Ok(())
}

async fn load_achievement(conn: &mut Conn, new: &NewAchievement, loaded: &mut CatalogueCounts) -> Result<()> {
    let found = achievements::table
        .filter(achievements::slug.eq(&new.slug))
        .select((achievements::id, NewAchievement::as_select()))
        .first::<(i64, NewAchievement)>(conn)
        .await
        .optional()?;
    match found {
        None => {
            diesel::insert_into(achievements::table).values(new.clone()).execute(conn).await?;
            loaded.created += 1;
        }
        Some((_, stored)) if stored == *new => loaded.unchanged += 1,
        Some((id, _)) => {
            diesel::update(achievements::table.find(id)).set(new.clone()).execute(conn).await?;
            loaded.updated += 1;
        }
    }
    Ok(())
}
