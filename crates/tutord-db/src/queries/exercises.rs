//! Exercises: the catalogue, the daily exercise, and the progress of students.
//!
//! Every change of a student's progress locks the student's row first. So the changes of one student are serialized,
//! and two concurrent completions count once.

use async_trait::async_trait;
use diesel::alias;
use diesel::dsl::{count_star, exists, not};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::RunQueryDsl;
use tutord_core::model::progress::{ALL_TIME, AchievementStatus, Activity, TopicSkill, starts_on, utc_day};
use tutord_core::model::{
    Achievement, AssignedExercise, Candidate, CandidateFilter, CatalogueCounts, Completion, DailyChoice, Difficulty,
    Exercise, ExerciseKey, ExerciseStatus, GradedSubmission, Grading, HistoryItem, Moment, NewAchievement, NewExercise,
    NewSubmission, NewestDailyExercise, PASSING_GRADE, Period, RequestKey, StoredSubmission, SubmissionOutcome,
    TakenHint, Transition, UserExercise,
};
use tutord_core::operations::CATALOGUE_KEY;
use tutord_core::page::{Cursor, Page, PageRequest, Position};
use tutord_core::rules::{self, streak};
use tutord_core::schema::{
    achievements, activity, exercise_requests, exercises, leaderboard_entries, leaderboards, skill_levels, submissions,
    user_achievements, user_exercises, users,
};
use tutord_core::sql_types::Instant;
use tutord_core::store::{Exercises, Loaded};
use tutord_core::{Error, LocalDate, Result, Timestamp};

use super::completions::{
    StreakInstants, Sums, graded_submission, locked_with_sums, newest_day, of_all_time, skills_of, unlocked,
};
use super::leaderboards::{BoardEntry, PERIODS, board_entries};
use super::locks::locked_student;
use super::requests::{RequestRow, earlier_request, remembered};
use super::rows::{activity_row, exercise_row, history_row, topic_skill_row, user_exercise_row};
use super::user_exercise_rows::{self, Locked, own_row, started, unstarted};
use super::{Adapter, Conn, catalogue, completions, locks, metadata, requests};
use crate::cached_statement::{CachedStatement, Optional};

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

/// An exercise, the student's progress, and the time when it became the daily exercise.
type DailyRow = (Exercise, UserExercise, Option<Timestamp>);

/// Selects the daily exercise with the latest date.
macro_rules! newest_daily {
    ($user_id:expr) => {
        user_exercises::table
            .inner_join(exercises::table)
            .filter(user_exercises::user_id.eq($user_id))
            .filter(user_exercises::daily_date.is_not_null())
            .order(user_exercises::daily_date.desc())
            .limit(1)
            .select((exercise_row(), user_exercise_row(), user_exercises::daily_since))
    };
}

/// The grade, feedback, strengths and improvements of a submission.
type GradingRow = (Option<i32>, Option<String>, Option<String>, Option<String>);

/// Selects the grade of a submission.
macro_rules! grading_of {
    ($submission_id:expr) => {
        submissions::table.find($submission_id).select((
            submissions::grade,
            submissions::feedback,
            submissions::strengths,
            submissions::improvements,
        ))
    };
}

/// Locks the student, and reads an exercise with the student's progress, in one round trip with further queries.
macro_rules! locked {
    ($conn:ident, $user_id:expr, $exercise_id:expr $(, $query:ident.load::<$type:ty>)* $(,)?) => {{
        let student = locked_student!($user_id);
        let exercise = visible($user_id, $exercise_id).select((exercise_row(), ExerciseKey::as_select()));
        let progress = user_exercises::table
            .filter(user_exercises::user_id.eq($user_id))
            .filter(user_exercises::exercise_id.eq($exercise_id))
            .select(user_exercise_row());
        let (student, exercise, progress $(, $query)*) = pipelined!(
            $conn,
            student.load::<bool>,
            exercise.load::<(Exercise, ExerciseKey)>,
            progress.load::<UserExercise>
            $(, $query.load::<$type>)*
        );
        (Locked::new($user_id, student, exercise, progress)? $(, $query)*)
    }};
}

/// The exercises of one status, if one is given.
macro_rules! with_status {
    ($rows:expr, $status:expr) => {
        match $status {
            Some(status) => $rows.filter(user_exercises::status.eq(status)),
            None => $rows,
        }
    };
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
        self.read(async |conn| Ok(daily_exercise(newest_daily!(user_id).load(conn).await?))).await
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
            let user_exercise = user_exercise_rows::insert(conn, user_id, exercise.id).await?;
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
            let all = alias!(user_exercises as all);
            let total = all.filter(all.field(user_exercises::user_id).eq(user_id)).select(count_star()).into_boxed();
            let total = match status {
                Some(status) => total.filter(all.field(user_exercises::status).eq(status)),
                None => total,
            };
            // One more row than requested shows whether the list continues.
            let limit = page.limit + 1;
            let (items, total) = match page.position {
                // Without rows the total is 0.
                Position::Offset(0) => {
                    let columns = (history_row(), total.single_value());
                    let rows = with_status!(history_page!(user_id, columns, page.position, limit), status);
                    let rows: Vec<(HistoryItem, Option<i64>)> = rows.load(conn).await?;
                    let total = <[_]>::first(&rows).and_then(|(_, total)| *total);
                    (rows.into_iter().map(|(item, _)| item).collect(), total)
                }
                position => {
                    let rows = with_status!(history_page!(user_id, history_row(), position, limit), status);
                    let (rows, total) = pipelined!(conn, rows.load::<HistoryItem>, total.load::<i64>);
                    (rows, total.into_iter().next())
                }
            };
            Ok(Page::cut(items, total.unwrap_or(0), page.limit, HistoryItem::cursor))
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
            let Some(locked) = locked!(conn, user_id, exercise_id) else { return Ok(Transition::NotFound) };
            let Locked { exercise, key, progress, .. } = &locked;
            if !is_open(progress.status) {
                return Ok(Transition::Forbidden(progress.status));
            }
            let unstarted = Optional((!locked.is_stored).then(|| unstarted!(user_id, exercise_id, None)));
            let hints = key.hints();
            let Some(hint) = usize::try_from(progress.hints_used).ok().and_then(|step| hints.get(step)) else {
                committed!(conn, unstarted.execute);
                return Ok(Transition::Done(None));
            };
            let step = progress.hints_used + 1;
            let started = started!(progress, at, user_exercises::hints_used.eq(step));
            committed!(conn, unstarted.execute, started.execute);
            Ok(Transition::Done(Some(TakenHint {
                exercise: exercise.clone(),
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
            let earlier = earlier_request!(user_id, new.request.as_ref().map_or("", |request| &request.key));
            let (locked, earlier) = locked!(conn, user_id, exercise_id, earlier.load::<RequestRow>);
            let Some(locked) = locked else { return Ok(Transition::NotFound) };
            let Locked { exercise, key, progress, is_stored, .. } = locked;
            if let Some(request) = &new.request
                && let Some(id) = requests::submission(earlier, request)?
            {
                let grading = grading_of!(id).load::<GradingRow>(conn).await?;
                return Ok(Transition::Done(match grading.into_iter().find_map(grading_from) {
                    Some(grading) => SubmissionOutcome::Graded(graded_submission(grading, key, progress)),
                    None => SubmissionOutcome::Ungraded(StoredSubmission { id, exercise, user_exercise: progress }),
                }));
            }
            if !is_open(progress.status) {
                return Ok(Transition::Forbidden(progress.status));
            }
            let unstarted = Optional((!is_stored).then(|| unstarted!(user_id, exercise_id, None)));
            let submission = CachedStatement(
                diesel::insert_into(submissions::table)
                    .values(own_row!(progress).select((
                        user_exercises::id,
                        (&new.solution).into_sql::<Text>(),
                        at.into_sql::<Instant>(),
                    )))
                    .into_columns((submissions::user_exercise_id, submissions::solution, submissions::created_at))
                    .returning(submissions::id),
            );
            let request = Optional(new.request.as_ref().map(|request| {
                let submission = last_id!("submissions").nullable();
                CachedStatement(remembered!(user_id, request, exercise_id, submission))
            }));
            let changes = (
                user_exercises::submission_count.eq(progress.submission_count + 1),
                user_exercises::time_spent_seconds.eq(longest(&progress, new.time_spent_seconds)),
            );
            let started = CachedStatement(started!(progress, at, changes).0.returning(user_exercise_row()));
            let (_, id, _, started) = committed!(
                conn,
                unstarted.execute,
                submission.load::<i64>,
                request.execute,
                started.load::<UserExercise>,
            );
            let stored = id.into_iter().zip(started).next();
            let (id, user_exercise) = stored.ok_or(diesel::result::Error::NotFound)?;
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
            let exercise_id = submission.exercise.id;
            let present = grading_of!(submission.id);
            let (locked, sums, present) =
                locked_with_sums!(conn, user_id, exercise_id, moment.at, present.load::<GradingRow>);
            let (Some(mut locked), Some(present)) = (locked, present.into_iter().next()) else {
                return Ok(Transition::NotFound);
            };
            if let Some(first) = grading_from(present) {
                // A repeated request was graded meanwhile.
                return Ok(Transition::Done(graded_submission(first, locked.key, locked.progress)));
            }
            let graded = graded_submission!(submission.id, grading);
            if !is_open(locked.progress.status) {
                // Completed or skipped while the grader was reading: what was counted stays as it is.
                committed!(conn, graded.execute);
                return Ok(Transition::Done(graded_submission(grading.clone(), locked.key, locked.progress)));
            }
            let user_exercise = if grading.grade >= PASSING_GRADE {
                locked.progress.grade = Some(grading.grade);
                locked.progress.feedback = Some(grading.feedback.clone());
                completions::complete(conn, &locked, sums, &moment, Some((submission.id, grading))).await?.user_exercise
            } else {
                let changes = (user_exercises::grade.eq(grading.grade), user_exercises::feedback.eq(&grading.feedback));
                let started = started!(locked.progress, moment.at, changes).0.returning(user_exercise_row());
                let started = CachedStatement(started);
                let (_, started) = committed!(conn, graded.execute, started.load::<UserExercise>);
                started.into_iter().next().ok_or(diesel::result::Error::NotFound)?
            };
            Ok(Transition::Done(graded_submission(grading.clone(), locked.key, user_exercise)))
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
            let (locked, sums) = locked_with_sums!(conn, user_id, exercise_id, moment.at);
            let Some(mut locked) = locked else { return Ok(Transition::NotFound) };
            // Completing earns points: an exercise that nobody gave the student, and that the student did nothing
            // with, has no row and earns none.
            if !locked.is_stored {
                return Ok(Transition::NotStarted);
            }
            match locked.progress.status {
                ExerciseStatus::Completed => {
                    Ok(Transition::Done(completions::completion(conn, locked.progress).await?))
                }
                ExerciseStatus::Skipped => Ok(Transition::Forbidden(locked.progress.status)),
                ExerciseStatus::Pending | ExerciseStatus::InProgress => {
                    locked.progress.time_spent_seconds = longest(&locked.progress, time_spent_seconds);
                    Ok(Transition::Done(completions::complete(conn, &locked, sums, &moment, None).await?))
                }
            }
        })
        .await
    }

    async fn skip_exercise(&self, user_id: i64, exercise_id: i64, moment: Moment) -> Result<Transition<()>> {
        self.transaction(async |conn| {
            let Some(locked) = locked!(conn, user_id, exercise_id) else { return Ok(Transition::NotFound) };
            let progress = &locked.progress;
            match progress.status {
                ExerciseStatus::Completed => return Ok(Transition::Forbidden(progress.status)),
                ExerciseStatus::Skipped => return Ok(Transition::Done(())),
                ExerciseStatus::Pending | ExerciseStatus::InProgress => {}
            }
            let skip_count = progress.skip_count + 1;
            let due_on = moment.day.plus_days(rules::skipped_for(skip_count));
            let unstarted = Optional((!locked.is_stored).then(|| unstarted!(user_id, exercise_id, None)));
            let skipped = CachedStatement(diesel::update(own_row!(progress)).set((
                user_exercises::status.eq(ExerciseStatus::Skipped),
                user_exercises::skip_count.eq(skip_count),
                user_exercises::due_on.eq(due_on),
                user_exercises::ended_at.eq(moment.at),
                user_exercises::updated_at.eq(moment.at),
            )));
            committed!(conn, unstarted.execute, skipped.execute);
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

/// Returns a grade for the student, with the solution once the exercise is completed.
fn graded_submission(grading: Grading, key: ExerciseKey, user_exercise: UserExercise) -> GradedSubmission {
    let solution = key.solution.filter(|_| user_exercise.status == ExerciseStatus::Completed);
    GradedSubmission { grading, user_exercise, solution }
}

/// Returns the grade in a row of a submission, if it has one.
fn grading_from((grade, feedback, strengths, improvements): GradingRow) -> Option<Grading> {
    // Rows of an earlier version have neither.
    let texts = |json: Option<String>| json.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    Some(Grading {
        grade: grade?,
        feedback: feedback.unwrap_or_default(),
        strengths: texts(strengths),
        improvements: texts(improvements),
    })
}

/// Returns the daily exercise in a row.
fn daily_exercise(rows: Vec<DailyRow>) -> Option<NewestDailyExercise> {
    let (exercise, user_exercise, since) = rows.into_iter().next()?;
    let dated = (user_exercise.daily_date?, since.unwrap_or(user_exercise.created_at));
    Some(NewestDailyExercise { assigned: (exercise, user_exercise), dated })
}

/// Assigns the daily exercise, unless the day has one. Returns `true` if it is new.
async fn assign(
    conn: &mut Conn,
    user_id: i64,
    moment: &Moment,
    chosen: &DailyChoice,
) -> Result<Option<(AssignedExercise, bool)>> {
    let (student, newest) = (locked_student!(user_id), newest_daily!(user_id));
    let (student, newest) = pipelined!(conn, student.load::<bool>, newest.load::<DailyRow>);
    if student.is_empty() {
        return Err(diesel::result::Error::NotFound.into());
    }
    let newest = daily_exercise(newest);
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
    let unstarted = Optional((skipped == 0).then(|| unstarted!(user_id, id, Some((day, moment.at)))));
    let newest = newest_daily!(user_id);
    let (_, newest) = committed!(conn, unstarted.execute, newest.load::<DailyRow>);
    Ok(daily_exercise(newest).map(|newest| (newest.assigned, true)))
}
