//! A completion: everything that changes when a student completes an exercise, in one transaction, and the recomputation
//! of these sums from the completed exercises. The rules themselves are in `tutord_core::rules`.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::progress::{AchievementStatus, Activity, TopicSkill};
use tutord_core::model::{Achievement, Completion, Exercise, ExerciseStatus, Grading, Moment, Period, UserExercise};
use tutord_core::rules::streak::Streak;
use tutord_core::rules::{self, BoardValues, CompletedExercise, Summary, level};
use tutord_core::schema::{
    achievements, activity, exercises, skill_levels, submissions, user_achievements, user_exercises, users,
};
use tutord_core::time::zone::{day_in, zone};
use tutord_core::{LocalDate, Result, Timestamp};

use super::leaderboards::{BoardEntry, appended_changes, stored_entries};
use super::locks::lock_student;
use super::rows::{exercise_row, user_exercise_row};
use super::user_exercise_rows::Locked;
use super::{Conn, Each, leaderboards};
use crate::cached_statement::{CachedStatement, Optional};

/// The number of completions that a recomputation reads at once.
const REBUILD_PAGE: i64 = 1_000;

/// Selects a student's sums of all time.
macro_rules! of_all_time {
    ($user_id:expr) => {
        activity::table.find(($user_id, Period::All, ALL_TIME)).select(activity_row())
    };
}

/// Selects a student's newest day with a completion.
macro_rules! newest_day {
    ($user_id:expr) => {
        activity::table
            .filter(activity::user_id.eq($user_id))
            .filter(activity::period.eq(Period::Daily))
            .order(activity::starts_on.desc())
            .limit(1)
            .select(activity_row())
    };
}

/// Selects all achievements, with the time when the student unlocked them.
macro_rules! unlocked {
    ($user_id:expr) => {
        achievements::table
            .left_join(user_achievements::table.on(
                user_achievements::achievement_id.eq(achievements::id).and(user_achievements::user_id.eq($user_id)),
            ))
            .order((achievements::category.asc(), achievements::requirement_value.asc(), achievements::id.asc()))
            .select((Achievement::as_select(), user_achievements::unlocked_at.nullable()))
    };
}

pub(super) use newest_day;
pub(super) use of_all_time;
pub(super) use unlocked;

/// Stores a student's level in a topic.
macro_rules! stored_skill {
    ($skill:expr) => {
        CachedStatement(
            diesel::insert_into(skill_levels::table)
                .values($skill.clone())
                .on_conflict((skill_levels::user_id, skill_levels::topic))
                .do_update()
                .set($skill.clone()),
        )
    };
}

/// Stores the sums of a day, or of all time.
macro_rules! stored_activity {
    ($sums:expr) => {
        CachedStatement(
            diesel::insert_into(activity::table)
                .values($sums.clone())
                .on_conflict((activity::user_id, activity::period, activity::starts_on))
                .do_update()
                .set($sums.clone()),
        )
    };
}

/// Copies the values that a profile shows to the student's row.
macro_rules! stored_streak {
    ($summary:expr) => {{
        let (newest, streak) = ($summary.newest.as_ref(), $summary.streak.as_ref());
        CachedStatement(diesel::update(users::table.find($summary.all.user_id)).set((
            users::current_streak.eq(newest.map_or(0, |day| day.streak)),
            users::longest_streak.eq($summary.all.streak),
            users::exercises_completed.eq($summary.all.exercises_completed),
            users::last_exercise_date.eq(newest.map(|day| day.starts_on)),
            users::last_completed_at.eq(streak.map(|streak| streak.until)),
            users::streak_since.eq(streak.map(|streak| streak.since)),
            users::streak_day_since.eq(streak.map(|streak| streak.day_since)),
        )))
    }};
}

/// Stores the grade of a submission.
macro_rules! graded_submission {
    ($id:expr, $grading:expr) => {
        CachedStatement(diesel::update(submissions::table.find($id)).set((
            submissions::grade.eq($grading.grade),
            submissions::feedback.eq(&$grading.feedback),
            submissions::strengths.eq(serde_json::json!($grading.strengths).to_string()),
            submissions::improvements.eq(serde_json::json!($grading.improvements).to_string()),
        )))
    };
}

pub(super) use graded_submission;

/// Selects the student's skills in the topics of an exercise, and possibly in topics with similar names.
macro_rules! skills_of {
    ($user_id:expr, $exercise_id:expr) => {
        CachedStatement(
            skill_levels::table
                .filter(skill_levels::user_id.eq($user_id))
                .filter(
                    diesel::dsl::sql::<Bool>("',' || (SELECT topics FROM exercises WHERE id = ")
                        .bind::<BigInt, _>($exercise_id)
                        .sql(") || ',' LIKE '%,' || skill_levels.topic || ',%'"),
                )
                .select(topic_skill_row()),
        )
    };
}

/// Locks the student, and reads an exercise with the student's progress and all that its completion at `at` changes.
macro_rules! locked_with_sums {
    ($conn:ident, $user_id:expr, $exercise_id:expr, $at:expr $(, $query:ident.load::<$type:ty>)*) => {{
        let read_on = utc_day($at);
        let (all, newest) = (of_all_time!($user_id), newest_day!($user_id));
        let instants = users::table.find($user_id).select(StreakInstants::as_select());
        let (skills, achievements) = (skills_of!($user_id, $exercise_id), unlocked!($user_id));
        let language = exercises::table.find($exercise_id).select(exercises::programming_language).single_value();
        let languages = leaderboards::language.eq("").or(leaderboards::language.nullable().eq(language));
        let entries = board_entries!($user_id, read_on, languages);
        let (locked, all, newest, instants, skills, achievements, entries $(, $query)*) = locked!(
            $conn,
            $user_id,
            $exercise_id,
            all.load::<Activity>,
            newest.load::<Activity>,
            instants.load::<StreakInstants>,
            skills.load::<TopicSkill>,
            achievements.load::<AchievementStatus>,
            entries.load::<BoardEntry>
            $(, $query.load::<$type>)*
        );
        let sums = Sums {
            all: all.into_iter().next(),
            newest: newest.into_iter().next(),
            instants: instants.into_iter().next().unwrap_or_default(),
            skills,
            achievements,
            entries: (entries, read_on),
        };
        (locked, sums $(, $query)*)
    }};
}

pub(super) use locked_with_sums;
pub(super) use skills_of;

/// The sums of a student before a completion.
pub(super) struct Sums {
    pub(super) all: Option<Activity>,
    pub(super) newest: Option<Activity>,
    pub(super) instants: StreakInstants,
    pub(super) skills: Vec<TopicSkill>,
    pub(super) achievements: Vec<AchievementStatus>,
    /// The entries of the leaderboards of a day.
    pub(super) entries: (Vec<BoardEntry>, LocalDate),
}

/// Completes an open exercise, updates all sums, and commits. `graded` is the submission whose grade completes it.
pub(super) async fn complete(
    conn: &mut Conn,
    locked: &Locked,
    sums: Sums,
    moment: &Moment,
    graded: Option<(i64, &Grading)>,
) -> Result<Completion> {
    let Locked { exercise, progress, .. } = locked;
    let user_id = progress.user_id;
    let instants = sums.instants;
    let mut summary = Summary::empty(user_id);
    summary.newest = sums.newest;
    summary.streak = summary.newest.as_ref().and_then(|newest| instants.streak(newest));
    if let Some(all) = sums.all {
        summary.all = all;
    }
    // Moved past the completion before where the clock did not: the order of a student's completions is the order of
    // their times, so that a recomputation sees the same order.
    let last = instants.last_completed_at.map(|last| Timestamp::from_micros(last.as_micros() + 1));
    let completed_at = last.map_or(moment.at, |last| moment.at.max(last));
    let done = CompletedExercise {
        difficulty: exercise.difficulty,
        exercise_type: exercise.exercise_type,
        language: exercise.programming_language.clone(),
        topics: exercise.topics().map(str::to_owned).collect(),
        grade: progress.grade,
        hints_used: progress.hints_used,
        time_spent_seconds: progress.time_spent_seconds,
        completed_at,
        day: day_in(&moment.zone, completed_at),
        zone: Some(moment.zone.clone()),
    };
    let today = summary.count(&done);
    let (day, streak) = (today.starts_on, today.streak);

    let mut best_level = 0;
    let mut present: BTreeMap<String, TopicSkill> =
        sums.skills.into_iter().map(|skill| (skill.topic.clone(), skill)).collect();
    let mut skills = Vec::new();
    for topic in &done.topics {
        let first = || TopicSkill::empty(user_id, topic.clone(), done.completed_at);
        let mut skill = present.remove(topic).unwrap_or_else(first);
        skill.count(&done);
        best_level = best_level.max(level::rank(skill.level));
        skills.push(stored_skill!(skill));
    }
    let granted = reached(sums.achievements, &summary.all, best_level);
    let reward: i32 = granted.iter().map(|achievement| achievement.points).sum();
    summary.reward(i32::try_from(granted.len()).unwrap_or(i32::MAX), reward);
    let points = rules::points(exercise.difficulty) + reward;
    let changes = leaderboards::changes(conn, user_id, &done, (points, streak), sums.entries).await?;

    let graded = Optional(graded.map(|(id, grading)| graded_submission!(id, grading)));
    let skills = Each(skills);
    // Each once, as the primary key and the lock on the student ensure.
    let unlocked = Each(
        granted
            .iter()
            .map(|achievement| {
                diesel::insert_into(user_achievements::table).values((
                    user_achievements::user_id.eq(user_id),
                    user_achievements::achievement_id.eq(achievement.id),
                    user_achievements::unlocked_at.eq(done.completed_at),
                    user_achievements::user_exercise_id.eq(progress.id),
                ))
            })
            .collect(),
    );
    let all = stored_activity!(summary.all);
    let newest = Optional(summary.newest.as_ref().map(|newest| stored_activity!(newest)));
    let completed = CachedStatement(
        diesel::update(user_exercises::table.find(progress.id))
            .set((
                user_exercises::status.eq(ExerciseStatus::Completed),
                user_exercises::grade.eq(progress.grade),
                user_exercises::feedback.eq(&progress.feedback),
                user_exercises::time_spent_seconds.eq(progress.time_spent_seconds),
                user_exercises::points_earned.eq(points),
                user_exercises::started_at.eq(progress.started_at.unwrap_or(moment.at)),
                user_exercises::completed_at.eq(done.completed_at),
                user_exercises::completed_on.eq(day),
                user_exercises::completed_in.eq(moment.zone.iana_name()),
                user_exercises::ended_at.eq(done.completed_at),
                user_exercises::updated_at.eq(done.completed_at),
            ))
            .returning(user_exercise_row()),
    );
    let profile = stored_streak!(summary);
    let entries = stored_entries(user_id, locked.opted_out, &changes);
    let changes = appended_changes(locked.opted_out, &changes);
    let (_, _, _, _, _, completed, _, _, _) = committed!(
        conn,
        graded.execute,
        skills.execute,
        unlocked.execute,
        all.execute,
        newest.execute,
        completed.load::<UserExercise>,
        profile.execute,
        entries.execute,
        changes.execute,
    );
    let user_exercise = completed.into_iter().next().ok_or(diesel::result::Error::NotFound)?;
    let achievements = granted.into_iter().map(|achievement| achievement.slug).collect();
    Ok(Completion { user_exercise, streak, achievements })
}

/// Returns the result of an earlier completion.
pub(super) async fn completion(conn: &mut Conn, user_exercise: UserExercise) -> Result<Completion> {
    let streak = activity::table
        .filter(activity::user_id.eq(user_exercise.user_id))
        .filter(activity::period.eq(Period::Daily))
        .filter(activity::starts_on.nullable().eq(user_exercise.completed_on))
        .select(activity::streak)
        .first(conn)
        .await
        .optional()?
        .unwrap_or(0);
    let achievements = user_achievements::table
        .inner_join(achievements::table)
        .filter(user_achievements::user_exercise_id.eq(user_exercise.id))
        .order(achievements::id.asc())
        .select(achievements::slug)
        .load(conn)
        .await?;
    Ok(Completion { user_exercise, streak, achievements })
}

/// The instants of a student's streak; the sums of the newest day contain its days.
#[derive(Default, Queryable, Selectable)]
#[diesel(table_name = users)]
pub(super) struct StreakInstants {
    last_completed_at: Option<Timestamp>,
    streak_since: Option<Timestamp>,
    streak_day_since: Option<Timestamp>,
}

impl StreakInstants {
    fn streak(&self, newest: &Activity) -> Option<Streak> {
        Some(Streak {
            days: newest.streak,
            day: newest.starts_on,
            since: self.streak_since?,
            day_since: self.streak_day_since?,
            until: self.last_completed_at?,
        })
    }
}

async fn store_summary(conn: &mut Conn, summary: &Summary) -> QueryResult<()> {
    for sums in [Some(&summary.all), summary.newest.as_ref()].into_iter().flatten() {
        stored_activity!(sums).execute(conn).await?;
    }
    Ok(())
}

/// Returns the newly reached achievements.
fn reached(status: Vec<AchievementStatus>, all: &Activity, best_level: i32) -> Vec<Achievement> {
    status
        .into_iter()
        .filter(|(_, unlocked_at)| unlocked_at.is_none())
        .map(|(achievement, _)| achievement)
        .filter(|wanted| rules::unlocks(wanted.requirement, wanted.requirement_value, all, best_level))
        .collect()
}

/// A completion, as read by a recomputation.
#[derive(Queryable)]
struct History {
    user_exercise: UserExercise,
    exercise: Exercise,
    completed_in: Option<String>,
}

/// Recomputes all sums of a student from the completions, by the rules of completions.
pub(super) async fn rebuild(conn: &mut Conn, user_id: i64, now: Timestamp) -> Result<()> {
    lock_student(conn, user_id).await?;
    diesel::delete(activity::table.filter(activity::user_id.eq(user_id))).execute(conn).await?;
    diesel::delete(skill_levels::table.filter(skill_levels::user_id.eq(user_id))).execute(conn).await?;
    let rewards: Vec<(Option<i64>, i32)> = user_achievements::table
        .inner_join(achievements::table)
        .filter(user_achievements::user_id.eq(user_id))
        .select((user_achievements::user_exercise_id, achievements::points))
        .load(conn)
        .await?;
    let mut summary = Summary::empty(user_id);
    let mut skills = BTreeMap::<String, TopicSkill>::new();
    let mut values = BoardValues::default();
    let mut after = (Timestamp::from_micros(0), 0);
    loop {
        let page = completions_after(conn, user_id, after).await?;
        let Some(last) = page.last() else { break };
        after = (last.user_exercise.completed_at.unwrap_or(now), last.user_exercise.id);
        for History { user_exercise, exercise, completed_in } in page {
            let (Some(completed_at), Some(completed_on)) = (user_exercise.completed_at, user_exercise.completed_on)
            else {
                continue;
            };
            let zone = completed_in.as_deref().map(zone);
            let done = CompletedExercise {
                difficulty: exercise.difficulty,
                exercise_type: exercise.exercise_type,
                language: exercise.programming_language.clone(),
                topics: exercise.topics().map(str::to_owned).collect(),
                grade: user_exercise.grade,
                hints_used: user_exercise.hints_used,
                time_spent_seconds: user_exercise.time_spent_seconds,
                completed_at,
                day: zone.as_ref().map_or(completed_on, |zone| day_in(zone, completed_at)),
                zone,
            };
            // It differs where completions before it are gone.
            let day = summary.streak_with(&done).day;
            if day != completed_on {
                let row = user_exercises::table.find(user_exercise.id);
                diesel::update(row).set(user_exercises::completed_on.eq(day)).execute(conn).await?;
            }
            // A day is stored when the next begins: memory does not grow with the history.
            if let Some(newest) = summary.newest.as_ref().filter(|newest| newest.starts_on < day) {
                stored_activity!(newest).execute(conn).await?;
            }
            let streak = summary.count(&done).streak;
            for topic in &done.topics {
                let first = || TopicSkill::empty(user_id, topic.clone(), completed_at);
                skills.entry(topic.clone()).or_insert_with(first).count(&done);
            }
            let (mut count, mut reward) = (0, 0);
            for (_, points) in rewards.iter().filter(|(cause, _)| *cause == Some(user_exercise.id)) {
                count += 1;
                reward += points;
            }
            summary.reward(count, reward);
            values.count(&done, rules::points(exercise.difficulty) + reward, streak);
        }
    }
    if summary.newest.is_some() {
        store_summary(conn, &summary).await?;
    }
    for skill in skills.values() {
        stored_skill!(skill).execute(conn).await?;
    }
    stored_streak!(summary).execute(conn).await?;
    leaderboards::replace(conn, user_id, &values, now).await
}

async fn completions_after(conn: &mut Conn, user_id: i64, after: (Timestamp, i64)) -> Result<Vec<History>> {
    let (at, id) = after;
    let page = user_exercises::table
        .inner_join(exercises::table)
        .filter(user_exercises::user_id.eq(user_id))
        .filter(user_exercises::completed_at.is_not_null())
        .filter(user_exercises::completed_at.ge(at))
        .filter(
            user_exercises::completed_at.gt(at).or(user_exercises::completed_at.eq(at).and(user_exercises::id.gt(id))),
        )
        .order((user_exercises::completed_at.asc(), user_exercises::id.asc()))
        .limit(REBUILD_PAGE)
        .select((user_exercise_row(), exercise_row(), user_exercises::completed_in))
        .load(conn)
        .await?;
    Ok(page)
}
