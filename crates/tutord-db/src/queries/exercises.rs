//! Exercises: the catalogue, the daily exercise, and the progress of students.
//!
//! Every change of a student's progress locks the student's row first. So the changes of one student are serialized,
//! and two concurrent completions count once.

use async_trait::async_trait;
use diesel::alias;
use diesel::dsl::{count_star, exists, not};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::{
    AssignedExercise, Candidate, CandidateFilter, CatalogueCounts, Completion, DailyChoice, Difficulty, Exercise,
    ExerciseKey, ExerciseStatus, GradedSubmission, Grading, HistoryItem, Moment, NewAchievement, NewExercise,
    NewSubmission, NewestDailyExercise, PASSING_GRADE, RequestKey, StoredSubmission, SubmissionOutcome, TakenHint,
    Transition, UserExercise,
};
use tutord_core::operations::CATALOGUE_KEY;
use tutord_core::page::{Cursor, Page, PageRequest, Position, counted};
use tutord_core::rules::{self, streak};
use tutord_core::schema::{exercises, submissions, user_exercises, users};
use tutord_core::store::{Exercises, Loaded};
use tutord_core::{Error, LocalDate, Result, Timestamp};

use super::rows::{exercise_row, history_row, user_exercise_row};
use super::user_exercise_rows::{self, UserExerciseChanges, start};
use super::{Adapter, Conn, catalogue, completions, locks, metadata, requests};
use crate::cached_statement::CachedStatement;

/// These columns of a student's exercises.
macro_rules! history {
    ($user_id:expr, $columns:expr) => {
        user_exercises::table.inner_join(exercises::table).filter(user_exercises::user_id.eq($user_id)).select($columns)
    };
}

/// The same, newest first, a page at a time.
macro_rules! history_page {
    ($user_id:expr, $columns:expr, $position:expr, $limit:expr) => {{
        let mut rows = history!($user_id, $columns)
            .order((user_exercises::created_at.desc(), user_exercises::id.desc()))
            .limit($limit)
            .into_boxed();
        match $position {
            Position::Offset(offset) => rows = rows.offset(offset),
            Position::Cursor(cursor) => {
                let (at, id) = cursor.key();
                // The second condition implies the first, which lets the index seek.
                rows = rows.filter(user_exercises::created_at.le(at)).filter(
                    user_exercises::created_at
                        .lt(at)
                        .or(user_exercises::created_at.eq(at).and(user_exercises::id.lt(id))),
                );
            }
        }
        rows
    }};
}

#[async_trait]
impl Exercises for Adapter {
    async fn load_catalogue(
        &self,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<CatalogueCounts> {
        self.transaction(async |conn| catalogue::load(conn, exercises, achievements).await).await
    }

    async fn load_built_in_catalogue(
        &self,
        version: &str,
        exercises: &[NewExercise],
        achievements: &[NewAchievement],
    ) -> Result<Option<CatalogueCounts>> {
        self.transaction(async |conn| {
            exclusively!(conn, "metadata");
            if metadata::metadata(conn).await?.get(CATALOGUE_KEY).is_some_and(|loaded| loaded == version) {
                return Ok(None);
            }
            let loaded = catalogue::load(conn, exercises, achievements).await?;
            metadata::set_metadata(conn, CATALOGUE_KEY, version).await?;
            Ok(Some(loaded))
        })
        .await
    }

    async fn catalogue_exercises(&self, limit: i64) -> Result<Vec<Exercise>> {
        self.read(async |conn| {
            let catalogue = exercises::table.filter(exercises::owner_id.is_null()).order(exercises::id.asc());
            Ok(catalogue.limit(limit).select(exercise_row()).load(conn).await?)
        })
        .await
    }

    async fn exercise(&self, user_id: i64, id: i64) -> Result<Option<Loaded<Exercise>>> {
        self.read(async |conn| {
            let found = visible(user_id, id).select(exercise_row()).first(conn).await.optional()?;
            Ok(found.map(Loaded::Fresh))
        })
        .await
    }

    async fn newest_daily(&self, user_id: i64) -> Result<Option<NewestDailyExercise>> {
        self.read(async |conn| newest_daily(conn, user_id).await).await
    }

    async fn due_exercise(&self, user_id: i64, day: LocalDate) -> Result<Option<i64>> {
        self.read(async |conn| {
            let due = user_exercises::table
                .filter(user_exercises::user_id.eq(user_id))
                .filter(user_exercises::due_on.is_not_null())
                .filter(user_exercises::due_on.le(day))
                .order((user_exercises::due_on.asc(), user_exercises::id.asc()))
                .select(user_exercises::exercise_id)
                .first(conn)
                .await
                .optional()?;
            Ok(due)
        })
        .await
    }

    async fn daily_candidates(&self, user_id: i64, choice: &CandidateFilter, limit: i64) -> Result<Vec<Candidate>> {
        self.read(async |conn| {
            let taken = user_exercises::table
                .filter(user_exercises::user_id.eq(user_id))
                .filter(user_exercises::exercise_id.eq(exercises::id));
            let mut candidates = exercises::table
                .filter(exercises::owner_id.is_null())
                .filter(not(exists(taken)))
                .order(exercises::id.asc())
                .limit(limit)
                .select(Candidate::as_select())
                .into_boxed();
            if let Some(language) = &choice.language {
                candidates = candidates.filter(exercises::programming_language.eq(language));
            }
            if let Some(difficulty) = choice.difficulty {
                candidates = candidates.filter(exercises::difficulty.eq(difficulty));
            }
            Ok(candidates.load(conn).await?)
        })
        .await
    }

    async fn assign_daily(
        &self,
        user_id: i64,
        moment: &Moment,
        chosen: &DailyChoice,
    ) -> Result<Option<(AssignedExercise, bool)>> {
        match self.transaction(async |conn| assign(conn, user_id, moment, chosen).await).await {
            // The student took up the chosen exercise meanwhile.
            Err(Error::Conflict(_)) => Ok(None),
            outcome => outcome,
        }
    }

    async fn create_exercise(
        &self,
        user_id: i64,
        new: &NewExercise,
        request: Option<&RequestKey>,
    ) -> Result<AssignedExercise> {
        self.transaction(async |conn| {
            if let Some(request) = request {
                locks::lock_student(conn, user_id).await?;
                if let Some(created) = requests::created(conn, user_id, request).await? {
                    return Ok(created);
                }
            }
            let exercise = catalogue::insert_exercise(conn, new, Some(user_id)).await?;
            let user_exercise = user_exercise_rows::insert(conn, user_id, exercise.id, None).await?;
            if let Some(request) = request {
                requests::remember(conn, user_id, request, (exercise.id, None)).await?;
            }
            Ok((exercise, user_exercise))
        })
        .await
    }

    async fn created_exercise(&self, user_id: i64, request: &RequestKey) -> Result<Option<AssignedExercise>> {
        self.read(async |conn| requests::created(conn, user_id, request).await).await
    }

    async fn exercise_history(
        &self,
        user_id: i64,
        status: Option<ExerciseStatus>,
        page: &PageRequest,
    ) -> Result<Page<HistoryItem>> {
        self.read(async |conn| {
            let count = || {
                let all = alias!(user_exercises as all);
                let total =
                    all.filter(all.field(user_exercises::user_id).eq(user_id)).select(count_star()).into_boxed();
                match status {
                    Some(status) => total.filter(all.field(user_exercises::status).eq(status)),
                    None => total,
                }
            };
            // One more row than requested shows whether the list continues.
            let columns = (history_row(), count().single_value());
            let mut rows = history_page!(user_id, columns, page.position, page.limit + 1);
            if let Some(status) = status {
                rows = rows.filter(user_exercises::status.eq(status));
            }
            let (items, total) = counted(rows.load(conn).await?, page.position);
            let total = match total {
                Some(total) => total,
                None => count().get_result(conn).await?,
            };
            Ok(Page::cut(items, total, page.limit, HistoryItem::cursor))
        })
        .await
    }

    async fn history_before(&self, user_id: i64, cursor: Option<Cursor>, limit: i64) -> Result<Vec<HistoryItem>> {
        let position = cursor.map_or(Position::Offset(0), Position::Cursor);
        self.read(async |conn| Ok(history_page!(user_id, history_row(), position, limit).load(conn).await?)).await
    }

    async fn ended_exercises(&self, user_id: i64, limit: i64) -> Result<Vec<HistoryItem>> {
        self.read(async |conn| {
            let rows = history!(user_id, history_row())
                .filter(user_exercises::ended_at.is_not_null())
                .order((user_exercises::ended_at.desc(), user_exercises::id.desc()))
                .limit(limit);
            Ok(rows.load(conn).await?)
        })
        .await
    }

    async fn take_hint(&self, user_id: i64, exercise_id: i64, at: Timestamp) -> Result<Transition<Option<TakenHint>>> {
        self.transaction(async |conn| {
            let Some((exercise, key, user_exercise)) = lock_exercise(conn, user_id, exercise_id).await? else {
                return Ok(Transition::NotFound);
            };
            if !is_open(user_exercise.status) {
                return Ok(Transition::Forbidden(user_exercise.status));
            }
            let hints = key.hints();
            let Some(hint) = usize::try_from(user_exercise.hints_used).ok().and_then(|step| hints.get(step)) else {
                return Ok(Transition::Done(None));
            };
            let step = user_exercise.hints_used + 1;
            start(
                conn,
                &user_exercise,
                at,
                UserExerciseChanges { hints_used: Some(step), ..UserExerciseChanges::default() },
            )
            .await?;
            Ok(Transition::Done(Some(TakenHint {
                exercise,
                hint: hint.clone(),
                step,
                steps: i32::try_from(hints.len()).unwrap_or(i32::MAX),
            })))
        })
        .await
    }

    async fn submit_solution(
        &self,
        user_id: i64,
        exercise_id: i64,
        new: &NewSubmission,
        at: Timestamp,
    ) -> Result<Transition<SubmissionOutcome>> {
        self.transaction(async |conn| {
            let Some((exercise, key, user_exercise)) = lock_exercise(conn, user_id, exercise_id).await? else {
                return Ok(Transition::NotFound);
            };
            if let Some(request) = &new.request
                && let Some(id) = requests::submission(conn, user_id, request).await?
            {
                return Ok(Transition::Done(match grading_of(conn, id).await? {
                    Some(grading) => SubmissionOutcome::Graded(graded_submission(grading, key, user_exercise)),
                    None => SubmissionOutcome::Ungraded(StoredSubmission { id, exercise, user_exercise }),
                }));
            }
            if !is_open(user_exercise.status) {
                return Ok(Transition::Forbidden(user_exercise.status));
            }
            let id = diesel::insert_into(submissions::table)
                .values((
                    submissions::user_exercise_id.eq(user_exercise.id),
                    submissions::solution.eq(&new.solution),
                    submissions::created_at.eq(at),
                ))
                .returning(submissions::id)
                .get_result(conn)
                .await?;
            if let Some(request) = &new.request {
                requests::remember(conn, user_id, request, (exercise_id, Some(id))).await?;
            }
            let counted = UserExerciseChanges {
                submission_count: Some(user_exercise.submission_count + 1),
                time_spent_seconds: Some(longest(&user_exercise, new.time_spent_seconds)),
                ..UserExerciseChanges::default()
            };
            let user_exercise = start(conn, &user_exercise, at, counted).await?;
            Ok(Transition::Done(SubmissionOutcome::Ungraded(StoredSubmission { id, exercise, user_exercise })))
        })
        .await
    }

    async fn grade_submission(
        &self,
        user_id: i64,
        submission: &StoredSubmission,
        grading: &Grading,
        moment: Moment,
    ) -> Result<Transition<GradedSubmission>> {
        self.transaction(async |conn| {
            let Some((exercise, key, user_exercise)) = lock_exercise(conn, user_id, submission.exercise.id).await?
            else {
                return Ok(Transition::NotFound);
            };
            let is_first = CachedStatement(
                diesel::update(submissions::table.find(submission.id).filter(submissions::grade.is_null())).set((
                    submissions::grade.eq(grading.grade),
                    submissions::feedback.eq(&grading.feedback),
                    submissions::strengths.eq(serde_json::json!(grading.strengths).to_string()),
                    submissions::improvements.eq(serde_json::json!(grading.improvements).to_string()),
                )),
            )
            .execute(conn)
            .await?
                == 1;
            if !is_first {
                // A repeated request was graded meanwhile.
                let first = grading_of(conn, submission.id).await?.unwrap_or_else(|| grading.clone());
                return Ok(Transition::Done(graded_submission(first, key, user_exercise)));
            }
            if !is_open(user_exercise.status) {
                // Completed or skipped while the grader was reading: what was counted stays as it is.
                return Ok(Transition::Done(graded_submission(grading.clone(), key, user_exercise)));
            }
            let changes = UserExerciseChanges {
                grade: Some(grading.grade),
                feedback: Some(grading.feedback.clone()),
                ..UserExerciseChanges::default()
            };
            let mut user_exercise = start(conn, &user_exercise, moment.at, changes).await?;
            if grading.grade >= PASSING_GRADE {
                user_exercise = completions::complete(conn, &exercise, &user_exercise, &moment).await?.user_exercise;
            }
            Ok(Transition::Done(graded_submission(grading.clone(), key, user_exercise)))
        })
        .await
    }

    async fn complete_exercise(
        &self,
        user_id: i64,
        exercise_id: i64,
        time_spent_seconds: Option<i32>,
        moment: Moment,
    ) -> Result<Transition<Completion>> {
        self.transaction(async |conn| {
            let Some((exercise, _, user_exercise)) = find_exercise(conn, user_id, exercise_id).await? else {
                return Ok(Transition::NotFound);
            };
            // Completing earns points: an exercise that nobody gave the student, and that the student did nothing
            // with, has no row and earns none.
            let Some(mut user_exercise) = user_exercise else { return Ok(Transition::NotStarted) };
            match user_exercise.status {
                ExerciseStatus::Completed => Ok(Transition::Done(completions::completion(conn, user_exercise).await?)),
                ExerciseStatus::Skipped => Ok(Transition::Forbidden(user_exercise.status)),
                ExerciseStatus::Pending | ExerciseStatus::InProgress => {
                    user_exercise.time_spent_seconds = longest(&user_exercise, time_spent_seconds);
                    Ok(Transition::Done(completions::complete(conn, &exercise, &user_exercise, &moment).await?))
                }
            }
        })
        .await
    }

    async fn skip_exercise(&self, user_id: i64, exercise_id: i64, moment: Moment) -> Result<Transition<()>> {
        self.transaction(async |conn| {
            let Some((_, _, user_exercise)) = lock_exercise(conn, user_id, exercise_id).await? else {
                return Ok(Transition::NotFound);
            };
            match user_exercise.status {
                ExerciseStatus::Completed => return Ok(Transition::Forbidden(user_exercise.status)),
                ExerciseStatus::Skipped => return Ok(Transition::Done(())),
                ExerciseStatus::Pending | ExerciseStatus::InProgress => {}
            }
            let skip_count = user_exercise.skip_count + 1;
            let due_on = moment.day.plus_days(rules::skipped_for(skip_count));
            CachedStatement(diesel::update(user_exercises::table.find(user_exercise.id)).set((
                user_exercises::status.eq(ExerciseStatus::Skipped),
                user_exercises::skip_count.eq(skip_count),
                user_exercises::due_on.eq(due_on),
                user_exercises::ended_at.eq(moment.at),
                user_exercises::updated_at.eq(moment.at),
            )))
            .execute(conn)
            .await?;
            Ok(Transition::Done(()))
        })
        .await
    }

    async fn exercise_difficulty(&self, user_id: i64) -> Result<Option<Difficulty>> {
        self.read(async |conn| {
            let chosen = users::table.find(user_id).select(users::exercise_difficulty).first(conn).await.optional()?;
            Ok(chosen.flatten())
        })
        .await
    }

    async fn set_exercise_difficulty(&self, user_id: i64, difficulty: Difficulty) -> Result<()> {
        self.write(async |conn| {
            CachedStatement(diesel::update(users::table.find(user_id)).set(users::exercise_difficulty.eq(difficulty)))
                .execute(conn)
                .await?;
            Ok(())
        })
        .await
    }
}

/// Returns an exercise that this student may see: from the catalogue, or generated for the student.
#[diesel::dsl::auto_type]
fn visible(user_id: i64, id: i64) -> _ {
    exercises::table
        .filter(exercises::id.eq(id))
        .filter(exercises::owner_id.is_null().or(exercises::owner_id.eq(user_id)))
}

/// Returns `true` if the exercise is open.
const fn is_open(status: ExerciseStatus) -> bool {
    matches!(status, ExerciseStatus::Pending | ExerciseStatus::InProgress)
}

fn longest(user_exercise: &UserExercise, reported: Option<i32>) -> i32 {
    user_exercise.time_spent_seconds.max(reported.unwrap_or(0))
}

/// Locks the student, and reads an exercise with the student's progress; starts it if necessary.
async fn lock_exercise(
    conn: &mut Conn,
    user_id: i64,
    exercise_id: i64,
) -> Result<Option<(Exercise, ExerciseKey, UserExercise)>> {
    let Some((exercise, key, user_exercise)) = find_exercise(conn, user_id, exercise_id).await? else {
        return Ok(None);
    };
    let user_exercise = match user_exercise {
        Some(user_exercise) => user_exercise,
        None => user_exercise_rows::insert(conn, user_id, exercise_id, None).await?,
    };
    Ok(Some((exercise, key, user_exercise)))
}

/// Locks the student, and reads an exercise with the student's progress, if it is started.
async fn find_exercise(
    conn: &mut Conn,
    user_id: i64,
    exercise_id: i64,
) -> Result<Option<(Exercise, ExerciseKey, Option<UserExercise>)>> {
    locks::lock_student(conn, user_id).await?;
    let found = visible(user_id, exercise_id)
        .select((exercise_row(), ExerciseKey::as_select()))
        .first(conn)
        .await
        .optional()?;
    let Some((exercise, key)) = found else { return Ok(None) };
    let user_exercise = user_exercises::table
        .filter(user_exercises::user_id.eq(user_id))
        .filter(user_exercises::exercise_id.eq(exercise_id))
        .select(user_exercise_row())
        .first(conn)
        .await
        .optional()?;
    Ok(Some((exercise, key, user_exercise)))
}

/// Returns a grade for the student, with the solution once the exercise is completed.
fn graded_submission(grading: Grading, key: ExerciseKey, user_exercise: UserExercise) -> GradedSubmission {
    let solution = key.solution.filter(|_| user_exercise.status == ExerciseStatus::Completed);
    GradedSubmission { grading, user_exercise, solution }
}

/// Returns the grade of a submission, if it has one.
async fn grading_of(conn: &mut Conn, submission_id: i64) -> QueryResult<Option<Grading>> {
    type Columns = (Option<i32>, Option<String>, Option<String>, Option<String>);
    let (grade, feedback, strengths, improvements): Columns = submissions::table
        .find(submission_id)
        .select((submissions::grade, submissions::feedback, submissions::strengths, submissions::improvements))
        .first(conn)
        .await?;
    // Rows of an earlier version have neither.
    let texts = |json: Option<String>| json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    Ok(grade.map(|grade| Grading {
        grade,
        feedback: feedback.unwrap_or_default(),
        strengths: texts(strengths),
        improvements: texts(improvements),
    }))
}

async fn newest_daily(conn: &mut Conn, user_id: i64) -> Result<Option<NewestDailyExercise>> {
    let found: Option<(Exercise, UserExercise, Option<Timestamp>)> = user_exercises::table
        .inner_join(exercises::table)
        .filter(user_exercises::user_id.eq(user_id))
        .filter(user_exercises::daily_date.is_not_null())
        .order(user_exercises::daily_date.desc())
        .select((exercise_row(), user_exercise_row(), user_exercises::daily_since))
        .first(conn)
        .await
        .optional()?;
    Ok(found.and_then(|(exercise, user_exercise, since)| {
        let dated = (user_exercise.daily_date?, since.unwrap_or(user_exercise.created_at));
        Some(NewestDailyExercise { assigned: (exercise, user_exercise), dated })
    }))
}

/// Assigns the daily exercise, unless the day has one. Returns `true` if it is new.
async fn assign(
    conn: &mut Conn,
    user_id: i64,
    moment: &Moment,
    chosen: &DailyChoice,
) -> Result<Option<(AssignedExercise, bool)>> {
    locks::lock_student(conn, user_id).await?;
    let newest = newest_daily(conn, user_id).await?;
    let date = streak::daily_date(newest.as_ref().map(|newest| newest.dated), moment.at, &moment.zone);
    let Some(day) = date else { return Ok(newest.map(|newest| (newest.assigned, false))) };
    let id = match chosen {
        DailyChoice::Existing(id) => *id,
        DailyChoice::Generated(new) => catalogue::insert_exercise(conn, new, Some(user_id)).await?.id,
    };
    let skipped = CachedStatement(
        diesel::update(
            user_exercises::table
                .filter(user_exercises::user_id.eq(user_id))
                .filter(user_exercises::exercise_id.eq(id))
                .filter(user_exercises::due_on.is_not_null()),
        )
        .set((
            user_exercises::daily_date.eq(day),
            user_exercises::daily_since.eq(moment.at),
            user_exercises::status.eq(ExerciseStatus::Pending),
            user_exercises::due_on.eq(None::<LocalDate>),
            user_exercises::ended_at.eq(None::<Timestamp>),
            user_exercises::updated_at.eq(Timestamp::now()),
        )),
    )
    .execute(conn)
    .await?;
    if skipped == 0 {
        user_exercise_rows::insert(conn, user_id, id, Some((day, moment.at))).await?;
    }
    Ok(newest_daily(conn, user_id).await?.map(|newest| (newest.assigned, true)))
}
