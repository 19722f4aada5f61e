//! A completion: everything that changes when a student completes an exercise, in one transaction, and the recomputation
//! of these sums from the completed exercises. The rules themselves are in `tutord_core::rules`.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::progress::{ALL_TIME, AchievementStatus, Activity, TopicSkill};
use tutord_core::model::{Achievement, Completion, Exercise, ExerciseStatus, Moment, Period, UserExercise};
use tutord_core::rules::streak::Streak;
use tutord_core::rules::{self, BoardValues, CompletedExercise, Summary, level};
use tutord_core::schema::{achievements, activity, exercises, skill_levels, user_achievements, user_exercises, users};
use tutord_core::time::zone::{day_in, zone};
use tutord_core::{Result, Timestamp};

use super::locks::lock_student;
use super::rows::{activity_row, exercise_row, topic_skill_row, user_exercise_row};
use super::{Conn, leaderboards};
use crate::cached_statement::CachedStatement;

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

/// Completes an open exercise and updates all sums. The caller has locked the student.
pub(super) async fn complete(
    conn: &mut Conn,
    exercise: &Exercise,
    user_exercise: &UserExercise,
    moment: &Moment,
) -> Result<Completion> {
    let user_id = user_exercise.user_id;
    let instants = users::table.find(user_id).select(StreakInstants::as_select());
    let (all, newest) = (of_all_time!(user_id), newest_day!(user_id));
    let (all, newest, instants) =
        pipelined!(conn, all.load::<Activity>, newest.load::<Activity>, instants.load::<StreakInstants>);
    let instants = instants.into_iter().next().unwrap_or_default();
    let mut summary = Summary::empty(user_id);
    summary.newest = newest.into_iter().next();
    summary.streak = summary.newest.as_ref().and_then(|newest| instants.streak(newest));
    if let Some(all) = all.into_iter().next() {
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
        grade: user_exercise.grade,
        hints_used: user_exercise.hints_used,
        time_spent_seconds: user_exercise.time_spent_seconds,
        completed_at,
        day: day_in(&moment.zone, completed_at),
        zone: Some(moment.zone.clone()),
    };
    let today = summary.count(&done);
    let (day, streak) = (today.starts_on, today.streak);

    let mut best_level = 0;
    let mut skills = topic_skills(conn, user_id, &done.topics).await?;
    for topic in &done.topics {
        let skill =
            skills.entry(topic.clone()).or_insert_with(|| TopicSkill::empty(user_id, topic.clone(), done.completed_at));
        skill.count(&done);
        best_level = best_level.max(level::rank(skill.level));
    }
    for skill in skills.into_values() {
        store_skill(conn, &skill).await?;
    }

    let granted = grant(conn, &summary.all, best_level, user_exercise.id, done.completed_at).await?;
    let reward: i32 = granted.iter().map(|achievement| achievement.points).sum();
    summary.reward(i32::try_from(granted.len()).unwrap_or(i32::MAX), reward);
    let points = rules::points(exercise.difficulty) + reward;
    store_summary(conn, &summary).await?;
    let user_exercise = CachedStatement(
        diesel::update(user_exercises::table.find(user_exercise.id))
            .set((
                user_exercises::status.eq(ExerciseStatus::Completed),
                user_exercises::time_spent_seconds.eq(user_exercise.time_spent_seconds),
                user_exercises::points_earned.eq(points),
                user_exercises::started_at.eq(user_exercise.started_at.unwrap_or(moment.at)),
                user_exercises::completed_at.eq(done.completed_at),
                user_exercises::completed_on.eq(day),
                user_exercises::completed_in.eq(moment.zone.iana_name()),
                user_exercises::ended_at.eq(done.completed_at),
                user_exercises::updated_at.eq(done.completed_at),
            ))
            .returning(user_exercise_row()),
    )
    .get_result(conn)
    .await?;
    store_streak(conn, &summary).await?;
    leaderboards::count(conn, user_id, &done, points, streak).await?;
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
struct StreakInstants {
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

async fn topic_skills(conn: &mut Conn, user_id: i64, topics: &[String]) -> Result<BTreeMap<String, TopicSkill>> {
    let skills: Vec<TopicSkill> = skill_levels::table
        .filter(skill_levels::user_id.eq(user_id))
        .filter(skill_levels::topic.eq_any(topics))
        .select(topic_skill_row())
        .load(conn)
        .await?;
    Ok(skills.into_iter().map(|skill| (skill.topic.clone(), skill)).collect())
}

async fn store_skill(conn: &mut Conn, skill: &TopicSkill) -> QueryResult<usize> {
    CachedStatement(
        diesel::insert_into(skill_levels::table)
            .values(skill.clone())
            .on_conflict((skill_levels::user_id, skill_levels::topic))
            .do_update()
            .set(skill.clone()),
    )
    .execute(conn)
    .await
}

async fn store_activity(conn: &mut Conn, sums: &Activity) -> QueryResult<usize> {
    CachedStatement(
        diesel::insert_into(activity::table)
            .values(sums.clone())
            .on_conflict((activity::user_id, activity::period, activity::starts_on))
            .do_update()
            .set(sums.clone()),
    )
    .execute(conn)
    .await
}

async fn store_summary(conn: &mut Conn, summary: &Summary) -> QueryResult<()> {
    for sums in [Some(&summary.all), summary.newest.as_ref()].into_iter().flatten() {
        store_activity(conn, sums).await?;
    }
    Ok(())
}

/// Copies the values that a profile shows to the student's row.
async fn store_streak(conn: &mut Conn, summary: &Summary) -> QueryResult<usize> {
    let (newest, streak) = (summary.newest.as_ref(), summary.streak.as_ref());
    CachedStatement(diesel::update(users::table.find(summary.all.user_id)).set((
        users::current_streak.eq(newest.map_or(0, |day| day.streak)),
        users::longest_streak.eq(summary.all.streak),
        users::exercises_completed.eq(summary.all.exercises_completed),
        users::last_exercise_date.eq(newest.map(|day| day.starts_on)),
        users::last_completed_at.eq(streak.map(|streak| streak.until)),
        users::streak_since.eq(streak.map(|streak| streak.since)),
        users::streak_day_since.eq(streak.map(|streak| streak.day_since)),
    )))
    .execute(conn)
    .await
}

/// Grants the newly reached achievements, each once, as the primary key of `user_achievements` and the lock on the
/// student ensure.
async fn grant(
    conn: &mut Conn,
    all: &Activity,
    best_level: i32,
    user_exercise_id: i64,
    at: Timestamp,
) -> Result<Vec<Achievement>> {
    let rows: Vec<AchievementStatus> = unlocked!(all.user_id).load(conn).await?;
    let reached: Vec<Achievement> = rows
        .into_iter()
        .filter(|(_, unlocked_at)| unlocked_at.is_none())
        .map(|(achievement, _)| achievement)
        .filter(|wanted| rules::unlocks(wanted.requirement, wanted.requirement_value, all, best_level))
        .collect();
    for achievement in &reached {
        diesel::insert_into(user_achievements::table)
            .values((
                user_achievements::user_id.eq(all.user_id),
                user_achievements::achievement_id.eq(achievement.id),
                user_achievements::unlocked_at.eq(at),
                user_achievements::user_exercise_id.eq(user_exercise_id),
            ))
            .execute(conn)
            .await?;
    }
    Ok(reached)
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
                store_activity(conn, newest).await?;
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
        store_skill(conn, skill).await?;
    }
    store_streak(conn, &summary).await?;
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
