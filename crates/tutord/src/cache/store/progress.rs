//! The cached store: sums, leaderboards and derived values.

use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use readthrough::Key;
use tutord_core::model::progress::{
    Activity, ActivityHistory, Board, LeaderboardEntry, Neighbourhood, ProgressOverview, TopicSkill,
};
use tutord_core::page::{Page, PageRequest};
use tutord_core::store::Progress;
use tutord_core::{LocalDate, Result, Timestamp};

use super::super::effects::{CacheEffect, LEADERBOARDS};
use super::super::namespaces::OwnProgress;
use super::{CachedStore, empty_page, owned, page_member, read_error};

/// Returns a leaderboard, as a part of a key.
fn board_member(Board { metric, period, starts_on, language }: &Board) -> String {
    format!("{metric}:{period}:{starts_on}:{language}")
}

impl CachedStore {
    /// Returns one query result about a student's progress.
    async fn own_progress<L>(
        &self,
        user_id: i64,
        member: impl std::fmt::Display + Send,
        load: impl FnOnce() -> L + Send,
    ) -> Result<Option<OwnProgress>>
    where
        L: Future<Output = Result<Option<OwnProgress>>> + Send,
    {
        Ok(owned(
            self.namespaces.progress.get_or_load(&Key::in_group(user_id, member), load).await.map_err(read_error)?,
        ))
    }
}

#[async_trait]
impl Progress for CachedStore {
    async fn progress(&self, user_id: i64) -> Result<ProgressOverview> {
        let load = async || Ok(Some(OwnProgress::Overview(Box::new(self.store.progress(user_id).await?))));
        match self.own_progress(user_id, "overview", load).await? {
            Some(OwnProgress::Overview(found)) => Ok(*found),
            _ => Ok(ProgressOverview { all: None, achievements: Vec::new(), skills: Vec::new() }),
        }
    }

    async fn activity(&self, user_id: i64, from: LocalDate, to: LocalDate) -> Result<ActivityHistory> {
        let load = async || Ok(Some(OwnProgress::History(Box::new(self.store.activity(user_id, from, to).await?))));
        match self.own_progress(user_id, format!("{from}:{to}"), load).await? {
            Some(OwnProgress::History(found)) => Ok(*found),
            _ => Ok(ActivityHistory { all: None, days: Vec::new() }),
        }
    }

    async fn newest_activity(&self, user_id: i64) -> Result<Option<Activity>> {
        let load =
            async || Ok(self.store.newest_activity(user_id).await?.map(|found| OwnProgress::Newest(Box::new(found))));
        match self.own_progress(user_id, "newest", load).await? {
            Some(OwnProgress::Newest(found)) => Ok(Some(*found)),
            _ => Ok(None),
        }
    }

    async fn skill_levels(&self, user_id: i64) -> Result<Vec<TopicSkill>> {
        let load = async || Ok(Some(OwnProgress::Skills(self.store.skill_levels(user_id).await?)));
        match self.own_progress(user_id, "skills", load).await? {
            Some(OwnProgress::Skills(found)) => Ok(found),
            _ => Ok(Vec::new()),
        }
    }

    async fn skill_level(&self, user_id: i64, topic: &str) -> Result<Option<TopicSkill>> {
        self.store.skill_level(user_id, topic).await
    }

    async fn leaderboard(&self, board: &Board, page: &PageRequest) -> Result<Page<LeaderboardEntry>> {
        let load = async || self.store.leaderboard(board, page).await.map(Some);
        let key = Key::in_group(LEADERBOARDS, format_args!("{}:{}", board_member(board), page_member(page)));
        Ok(self
            .namespaces
            .leaderboards
            .get_or_load(&key, load)
            .await
            .map_err(read_error)?
            .map_or_else(empty_page, Arc::unwrap_or_clone))
    }

    async fn leaderboard_around(&self, board: &Board, user_id: i64, neighbours: i64) -> Result<Neighbourhood> {
        let key = Key::in_group(LEADERBOARDS, format_args!("{}:{user_id}:{neighbours}", board_member(board)));
        let load = async || self.store.leaderboard_around(board, user_id, neighbours).await.map(Some);
        match self.namespaces.places.get_or_load(&key, load).await.map_err(read_error)? {
            Some(found) => Ok(Arc::unwrap_or_clone(found)),
            None => self.store.leaderboard_around(board, user_id, neighbours).await,
        }
    }

    async fn set_leaderboard_opt_out(&self, user_id: i64, opted_out: bool) -> Result<()> {
        let store = Arc::clone(&self.store);
        let write = async move { store.set_leaderboard_opt_out(user_id, opted_out).await };
        self.write(write, |_| vec![CacheEffect::Leaderboards]).await
    }

    // Folding does not change ranks.
    async fn fold_leaderboards(&self, batch: i64) -> Result<usize> {
        self.store.fold_leaderboards(batch).await
    }

    // No route reads the leaderboards of past periods.
    async fn purge_leaderboards(&self, today: LocalDate, batch: i64) -> Result<usize> {
        self.store.purge_leaderboards(today, batch).await
    }

    async fn rebuild_statistics(&self, after: i64, limit: i64, now: Timestamp) -> Result<Vec<i64>> {
        let store = Arc::clone(&self.store);
        self.write(async move { store.rebuild_statistics(after, limit, now).await }, |rebuilt| {
            rebuilt.iter().flatten().map(|user| CacheEffect::Statistics { user: *user }).collect()
        })
        .await
    }

    async fn recount_leaderboards(&self) -> Result<()> {
        let store = Arc::clone(&self.store);
        self.write(async move { store.recount_leaderboards().await }, |_| vec![CacheEffect::Leaderboards]).await
    }
}
