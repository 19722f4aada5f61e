//! Progress: reads of the sums, and leaderboards.

use async_trait::async_trait;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use tutord_core::model::progress::{
    ALL_TIME, AchievementStatus, Activity, ActivityHistory, Board, LeaderboardEntry, MAX_TOPICS, Neighbourhood,
    ProgressOverview, TopicSkill,
};
use tutord_core::model::{Achievement, Period};
use tutord_core::page::{Page, PageRequest};
use tutord_core::schema::{achievements, activity, skill_levels, user_achievements, users};
use tutord_core::store::Progress;
use tutord_core::{LocalDate, Result, Timestamp};

use super::completions::{newest_day, of_all_time, unlocked};
use super::locks::lock_student;
use super::rows::{activity_row, topic_skill_row};
use super::{Adapter, completions, leaderboards};
use crate::cached_statement::CachedStatement;

macro_rules! skills {
    ($user_id:expr) => {
        skill_levels::table
            .filter(skill_levels::user_id.eq($user_id))
            .order(skill_levels::topic.asc())
            .limit(MAX_TOPICS)
            .select(topic_skill_row())
    };
}

#[async_trait]
impl Progress for Adapter {
    async fn progress(&self, user_id: i64) -> Result<ProgressOverview> {
        self.read(async |conn| {
            let (all, unlocked, skills) = (of_all_time!(user_id), unlocked!(user_id), skills!(user_id));
            let (all, achievements, skills) =
                pipelined!(conn, all.load::<Activity>, unlocked.load::<AchievementStatus>, skills.load::<TopicSkill>);
            Ok(ProgressOverview { all: all.into_iter().next(), achievements, skills })
        })
        .await
    }

    async fn activity(&self, user_id: i64, from: LocalDate, to: LocalDate) -> Result<ActivityHistory> {
        self.read(async |conn| {
            let all = activity::period.eq(Period::All).and(activity::starts_on.eq(ALL_TIME));
            let days = activity::period.eq(Period::Daily).and(activity::starts_on.between(from, to));
            let sums: Vec<Activity> = activity::table
                .filter(activity::user_id.eq(user_id))
                .filter(all.or(days))
                .order(activity::starts_on.asc())
                .select(activity_row())
                .load(conn)
                .await?;
            let (all, days) = sums.into_iter().partition::<Vec<_>, _>(|sums| sums.period == Period::All);
            Ok(ActivityHistory { all: all.into_iter().next(), days })
        })
        .await
    }

    async fn newest_activity(&self, user_id: i64) -> Result<Option<Activity>> {
        self.read(async |conn| Ok(newest_day!(user_id).first(conn).await.optional()?)).await
    }

    async fn skill_levels(&self, user_id: i64) -> Result<Vec<TopicSkill>> {
        self.read(async |conn| Ok(skills!(user_id).load(conn).await?)).await
    }

    async fn skill_level(&self, user_id: i64, topic: &str) -> Result<Option<TopicSkill>> {
        self.read(async |conn| {
            let found = skill_levels::table.find((user_id, topic)).select(topic_skill_row());
            Ok(found.first(conn).await.optional()?)
        })
        .await
    }

    async fn leaderboard(&self, board: &Board, page: &PageRequest) -> Result<Page<LeaderboardEntry>> {
        self.read(async |conn| leaderboards::page(conn, board, page).await).await
    }

    async fn leaderboard_around(&self, board: &Board, user_id: i64, neighbours: i64) -> Result<Neighbourhood> {
        self.read(async |conn| leaderboards::around(conn, board, user_id, neighbours).await).await
    }

    async fn set_leaderboard_opt_out(&self, user_id: i64, opted_out: bool) -> Result<()> {
        self.transaction(async |conn| {
            if lock_student(conn, user_id).await? == opted_out {
                return Ok(());
            }
            CachedStatement(diesel::update(users::table.find(user_id)).set(users::leaderboard_opt_out.eq(opted_out)))
                .execute(conn)
                .await?;
            leaderboards::set_hidden(conn, user_id, opted_out).await
        })
        .await
    }

    async fn fold_leaderboards(&self, batch: i64) -> Result<usize> {
        self.transaction(async |conn| leaderboards::fold(conn, batch).await).await
    }

    async fn purge_leaderboards(&self, today: LocalDate, batch: i64) -> Result<usize> {
        self.transaction(async |conn| leaderboards::purge(conn, today, batch).await).await
    }

    async fn rebuild_statistics(&self, after: i64, limit: i64, now: Timestamp) -> Result<Vec<i64>> {
        let students = self
            .read(async |conn| {
                let ids = users::table.filter(users::id.gt(after)).order(users::id.asc()).limit(limit);
                Ok(ids.select(users::id).load::<i64>(conn).await?)
            })
            .await?;
        for user_id in &students {
            self.transaction(async |conn| completions::rebuild(conn, *user_id, now).await).await?;
        }
        Ok(students)
    }

    async fn recount_leaderboards(&self) -> Result<()> {
        self.transaction(async |conn| leaderboards::recount(conn).await).await
    }
}
